"""Reader of OVA archives: the description in front, the disks where they lie in the file, the checksums of the manifest.

Source: DMTF DSP0243, Open Virtualization Format, section *Distribution as a single file*.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from tinamou.convert import ovf
from tinamou.convert.result import Draft
from tinamou.errors import ImageError, SpecError
from tinamou.system.closing import IfFailed
from tinamou.system.lock import given_up

__all__ = ["is_appliance", "read"]

_LARGEST = 1 << 20
_READ = 4 << 20
_LINE = re.compile(r"^(SHA1|SHA256|SHA512)[ \t]*\((.+)\)[ \t]*=[ \t]*([0-9a-fA-F]{1,128})[ \t\r]*$", re.MULTILINE)
_LARGEST_HEADER = 1 << 20
_MOST_MEMBERS = 1024


def is_appliance(path: Path) -> bool:
    """Whether a plain archive has an OVF description and is no box of Vagrant's."""
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return False
        file.seek(0)
        try:
            names = [name for name, _ in _members(file)]
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, UnicodeError):
            return True  # read says what is wrong with it
    return "metadata.json" not in names and any(name.lower().endswith(".ovf") for name in names)


def read(path: Path, *, later: bool = False) -> Draft:
    """The machine in an archive. Raises SpecError, ImageError for one that is damaged; nothing is unpacked.

    ``later``: what its manifest vouches for is left to be compared, by the draft's ``vouched``.
    """
    try:
        with path.open("rb") as file:
            members = dict(_members(file))
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, UnicodeError) as error:
        raise SpecError(f"{path} is a damaged archive", why=str(error)[:200], fix="fetch it again") from error
    described = [name for name in members if name.lower().endswith(".ovf")]
    if not described:
        raise SpecError(f"{path} is an archive without an OVF description", why="an OVA begins with one", fix="unpack it")
    vouched = partial(_verify, path, members)
    if not later:
        vouched()
    draft = ovf.read(_text(path, members[described[0]]))
    draft.source, draft.vouched = "an OVA", vouched if later else None
    for disk in draft.disks:
        if disk.file:
            if disk.file not in members:
                raise ImageError(f"{path} is incomplete", why=f"its description names {disk.file}, which is not in it")
            disk.part, disk.file = members[disk.file], str(path.resolve())
    return draft


class _Headers:
    """The file as tarfile reads it: headers alone, none of them large, whatever they say of themselves."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """The next bytes. Raises tarfile.ReadError for more than any header has."""
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset)

    def tell(self) -> int:
        """Where in the file it is."""
        return self._file.tell()


def _members(file: BinaryIO) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and place of every regular file that lies in the archive as it is, in the order they have there."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tarfile.TarFile(fileobj=cast(BinaryIO, _Headers(file))) as archive:
        position, count = -1, 0
        while member := archive.next():
            count += 1
            if not position < member.offset < member.offset_data <= member.offset_data + member.size <= end:
                raise tarfile.ReadError(f"{member.name[:100]} is not whole, or lies where another file does")
            if count > _MOST_MEMBERS:
                raise tarfile.ReadError(f"more than {_MOST_MEMBERS} files are in it")
            position = member.offset
            attributes = member.name.rpartition("/")[2].startswith("._")  # a macOS tar keeps them in files of their own
            if member.isreg() and not member.issparse() and not attributes:
                yield member.name, (member.offset_data, member.size)


def _text(path: Path, part: tuple[int, int]) -> str:
    offset, size = part
    if size > _LARGEST:
        raise SpecError(f"the description in {path} has {size} bytes", why=f"more than {_LARGEST} are no description")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size).decode("utf-8-sig", "replace")


def _verify(path: Path, members: dict[str, tuple[int, int]]) -> None:
    """Compare what the manifest vouches for, as many at once as there are CPUs: a digest is made by one of them.

    Raises ImageError naming the first file that is another. When it is given up, it ends soon, whatever it says then.
    """
    manifests = [_text(path, members[name]) for name in members if name.lower().endswith(".mf")]
    lines = [line for text in manifests for line in _LINE.findall(text) if line[1] in members]
    if not lines:
        return
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    unwanted, over = given_up.get(), Event()
    asked = dict.fromkeys((kind, name) for kind, name, _ in lines)
    ends = lambda: over.is_set() or unwanted()  # noqa: E731
    with ThreadPoolExecutor(os.cpu_count()) as pool, IfFailed(over.set):
        made = {one: pool.submit(_digest, path, members[one[1]], one[0], ends) for one in asked}
        for kind, name, expected in lines:
            if made[kind, name].result() != expected.lower():
                why = f"the manifest has another {kind} for it"
                raise ImageError(f"{name} in {path} is damaged", why=why, fix="fetch the archive again")


def _digest(path: Path, part: tuple[int, int], kind: str, ends: Callable[[], bool]) -> str:
    offset, left = part
    digest = hashlib.new(kind.lower(), usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(offset)
        while left and not ends() and (piece := file.read(min(_READ, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
