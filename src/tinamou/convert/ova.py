"""Reader of OVA archives: the description in front, the disks where they lie in the file, the checksums of the manifest.

Source: DMTF DSP0243, Open Virtualization Format, section *Distribution as a single file*.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path

from tinamou.convert import ovf
from tinamou.convert.result import Draft
from tinamou.errors import ImageError, SpecError

__all__ = ["read"]

_LARGEST = 4 << 20
_READ = 4 << 20
_LINE = re.compile(r"^(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*$", re.MULTILINE)


def read(path: Path) -> Draft:
    """The machine in an archive. Raises SpecError, ImageError for one that is damaged; nothing is unpacked."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {one.name: (one.offset_data, one.size) for one in archive.getmembers() if one.isreg()}
    except tarfile.TarError as error:
        raise SpecError(f"{path} is a damaged archive", why=str(error), fix="fetch it again") from error
    described = [name for name in members if name.lower().endswith(".ovf")]
    if not described:
        raise SpecError(f"{path} is an archive without an OVF description", why="an OVA begins with one", fix="unpack it")
    _verify(path, members)
    draft = ovf.read(_text(path, members[described[0]]))
    draft.source = "an OVA"
    for disk in draft.disks:
        if disk.file:
            if disk.file not in members:
                raise ImageError(f"{path} is incomplete", why=f"its description names {disk.file}, which is not in it")
            disk.part, disk.file = members[disk.file], str(path.resolve())
    return draft


def _text(path: Path, part: tuple[int, int]) -> str:
    offset, size = part
    if size > _LARGEST:
        raise SpecError(f"the description in {path} has {size} bytes", why=f"more than {_LARGEST} are no description")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size).decode("utf-8-sig", "replace")


def _verify(path: Path, members: dict[str, tuple[int, int]]) -> None:
    """Compare what the manifest vouches for. Raises ImageError naming the first file that is another."""
    for manifest in (name for name in members if name.lower().endswith(".mf")):
        for kind, name, expected in _LINE.findall(_text(path, members[manifest])):
            if name in members and _digest(path, members[name], kind) != expected.lower():
                why = f"the manifest has another {kind} for it"
                raise ImageError(f"{name} in {path} is damaged", why=why, fix="fetch the archive again")


def _digest(path: Path, part: tuple[int, int], kind: str) -> str:
    offset, left = part
    digest = hashlib.new(kind.lower(), usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(offset)
        while left and (piece := file.read(min(_READ, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
