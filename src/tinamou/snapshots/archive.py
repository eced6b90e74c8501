"""A tar archive whose first member, SHA256SUMS, tells every other: packed as a whole, unpacked only when nothing is damaged.

``tar -xf FILE && sha256sum -c SHA256SUMS`` examines one by hand.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tinamou.digest import file_digest
from tinamou.errors import Problem, StateError
from tinamou.system.new_file import new_file

__all__ = ["pack", "unpack"]

SUMS = "SHA256SUMS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_PIECE = 1 << 20
_LONGEST_SUMS = 1 << 20
_FIX = "copy or export it again"


def pack(files: Mapping[str, Path], target: Path) -> None:
    """Write the files under their names into an archive, on stable storage before it has its name.

    It replaces a regular file that is there, and nothing else. Raises StateError, OSError.
    """
    sums = "".join(f"{file_digest(path)}  {name}\n" for name, path in files.items()).encode()
    with new_file(target, force=True) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            first = tarfile.TarInfo(SUMS)
            first.size = len(sums)
            archive.addfile(first, io.BytesIO(sums))
            for name, path in files.items():
                _add(archive, name, path)
        file.flush()
        os.fsync(descriptor)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        member = tarfile.TarInfo(name)
        member.size = os.fstat(file.fileno()).st_size
        member.mode = 0o600
        archive.addfile(member, file)


def unpack(source: Path, directory: Path) -> frozenset[str]:
    """Unpack an archive into an empty folder; returns the names. Raises StateError naming what is damaged, OSError."""
    try:
        with tarfile.open(source, "r:") as archive:
            sums = _sums(source, archive)
            found = _members(source, archive, directory)
    except tarfile.TarError as error:
        raise StateError(f"{source} is no whole archive", why=str(error), fix=_FIX) from error
    problems = [Problem(name, None, "is missing from the archive", _FIX) for name in sums if name not in found]
    problems += [Problem(name, None, f"is not listed in {SUMS}", _FIX) for name in found if name not in sums]
    for name, sum in found.items():
        if name in sums and sum != sums[name]:
            problems.append(Problem(name, None, f"is damaged: its SHA-256 is {sum}, and was {sums[name]}", _FIX))
    if problems:
        raise StateError(f"{source} is damaged", problems=problems)
    return frozenset(sums)


def _sums(source: Path, archive: tarfile.TarFile) -> dict[str, str]:
    first = archive.next()
    if first is None or first.name != SUMS or not first.isreg() or first.size > _LONGEST_SUMS:
        raise StateError(f"{source} was not exported by tinamou", why=f"its first member is not {SUMS}")
    file = archive.extractfile(first)
    text = file.read().decode(errors="replace") if file else ""
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    if len(sums) != len(found) or not sums:
        raise StateError(f"{source} is damaged", problems=[Problem(SUMS, None, "is damaged", _FIX)])
    return sums


def _members(source: Path, archive: tarfile.TarFile, directory: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    while (member := archive.next()) is not None:
        if not member.isreg() or not _NAME.fullmatch(member.name) or member.name in found:
            why = f"{member.name!r} is no plain file, has no plain name, or is there twice"
            raise StateError(f"{source} was not exported by tinamou", why=why)
        found[member.name] = _extracted(source, archive, member, directory / member.name)
    return found


def _extracted(source: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    digest, left = hashlib.sha256(), member.size
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    file = archive.extractfile(member)
    assert file is not None
    with os.fdopen(descriptor, "wb") as out:
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                problem = Problem(member.name, None, f"is cut short: {left} of its {member.size} bytes are missing", _FIX)
                raise StateError(f"{source} is damaged", problems=[problem])
            digest.update(piece)
            out.write(piece)
            left -= len(piece)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
