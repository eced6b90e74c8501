"""The text descriptor inside or beside a vmdk: which other files it would make QEMU open.

Source: VMware Virtual Disk Format 5.0.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from tinamou.errors import ImageError

__all__ = ["descriptor_text", "extent_files"]

_EXTENT = re.compile(r'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\S+\s+"([^"]*)"', re.MULTILINE)
_PARENT = re.compile(r'^\s*parentFileNameHint\s*=\s*"([^"]*)"', re.MULTILINE)
_MAX_DESCRIPTOR = 1 << 20


def descriptor_text(path: Path, head: bytes, at: int = 0) -> str:
    """The descriptor of a vmdk whose first bytes are ``head``; empty where it has none. Raises ImageError.

    ``at`` is where the vmdk begins in the file: one inside an archive.
    """
    if head[:4] == b"COWD":
        return ""
    if head[:4] != b"KDMV":
        return head.decode("utf-8", "replace")
    if len(head) < 512:
        raise ImageError(f"{path} is truncated", why="the file is shorter than a vmdk header")
    offset, sectors = struct.unpack_from("<QQ", head, 28)
    if not offset:
        return ""
    if sectors * 512 > _MAX_DESCRIPTOR:
        raise ImageError(f"{path} has a damaged vmdk header", why=f"its descriptor claims {sectors * 512} bytes")
    with path.open("rb") as file:
        file.seek(at + offset * 512)
        return file.read(sectors * 512).split(b"\0", 1)[0].decode("utf-8", "replace")


def extent_files(path: Path, head: bytes, at: int = 0) -> list[Path]:
    """The files beside ``path`` that hold its data.

    Raises ImageError for a parent disk and for an extent that is missing or lies outside the folder of ``path``.
    """
    text = descriptor_text(path, head, at)
    if parent := _PARENT.search(text):
        fix = "consolidate its snapshots where it comes from, or convert it there"
        raise ImageError(f"{path} needs another disk", why=f"it names {parent[1]} as its parent", fix=fix)
    sparse = head[:4] == b"KDMV" and struct.unpack_from("<Q", head, 12)[0]
    names = [] if sparse else _EXTENT.findall(text)
    folder = path.resolve().parent
    for name in names:
        file = folder / name
        if file.resolve().parent != folder:
            why = "an image from elsewhere could name any file of this host there"
            raise ImageError(f"{path} keeps its data outside its folder: {name}", why=why)
        if not file.is_file():
            raise ImageError(f"{path} is incomplete", why=f"its extent {name} is missing", fix=f"put {name} beside it")
    return [folder / name for name in names]
