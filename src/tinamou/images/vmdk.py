"""The text descriptor inside or beside a vmdk: which other files it would make QEMU open.

Source: VMware Virtual Disk Format 5.0.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from tinamou.errors import ImageError

__all__ = ["descriptor_text", "extent_files"]

_EXTENT = re.compile(r'(?:RW|RDONLY|NOACCESS)\s+[-+]?\d+\s+\S+\s*"([^"\r\n]{0,511})')
"""All that QEMU takes for an extent, and more: it needs no line of its own, no end of the quotes, and cuts a long name."""
_PARENT = "parentFileNameHint"
_MAX_DESCRIPTOR = 1 << 20
"""As much as QEMU reads, whatever the header says of the descriptor's length."""
_MOST_EXTENTS = 1024


def descriptor_text(path: Path, head: bytes, at: int = 0) -> str:
    """The descriptor of a vmdk whose first bytes are ``head``; empty where it has none. Raises ImageError.

    ``at`` is where the vmdk begins in the file: one inside an archive.
    """
    offset = 0
    if head[:4] == b"COWD":
        return ""
    if head[:4] == b"KDMV":
        if len(head) < 512:
            raise ImageError(f"{path} is truncated", why="the file is shorter than a vmdk header")
        offset = struct.unpack_from("<Q", head, 28)[0]
        if not offset:
            return ""
        if offset > 1 << 32:
            raise ImageError(f"{path} has a damaged vmdk header", why=f"its descriptor is said to be in sector {offset}")
    with path.open("rb") as file:
        file.seek(at + offset * 512)
        return file.read(_MAX_DESCRIPTOR).split(b"\0", 1)[0].decode("utf-8", "replace")


def extent_files(path: Path, head: bytes, at: int = 0) -> list[Path]:
    """The files beside ``path`` that hold its data.

    Raises ImageError for a parent disk and for an extent that is missing or lies outside the folder of ``path``.
    """
    text = descriptor_text(path, head, at)
    named = text if _PARENT in text else head.decode("utf-8", "replace")
    if _PARENT in named:
        parent = named.partition(_PARENT)[2][2:].partition('"')[0][:200]
        fix = "consolidate its snapshots where it comes from, or convert it there"
        raise ImageError(f"{path} needs another disk", why=f"it names {parent} as its parent", fix=fix)
    names = [] if _is_sparse(head) else _EXTENT.findall(text)
    if len(names) > _MOST_EXTENTS:
        raise ImageError(f"{path} is cut into {len(names)} files", why=f"more than {_MOST_EXTENTS} are no disk")
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    return [_extent(path, folder, name) for name in names]


def _extent(path: Path, folder: str, name: str) -> Path:
    file = os.path.join(folder, name)  # noqa: PTH118
    if ":" in name or os.path.dirname(os.path.realpath(file)) != folder:  # noqa: PTH120
        why = "an image from elsewhere could name any file of this host there"
        raise ImageError(f"{path} keeps its data outside its folder: {name}", why=why)
    if not os.path.isfile(file):  # noqa: PTH113
        raise ImageError(f"{path} is incomplete", why=f"its extent {name} is missing", fix=f"put {name} beside it")
    with open(file, "rb") as extent:  # noqa: PTH123
        head = extent.read(512)
    if head[:4] == b"KDMV" and not _is_sparse(head):
        why = f"{name} holds no data itself: it could name any file of this host as the one that has it"
        raise ImageError(f"{path} has an extent that names others", why=why)
    return Path(file)


def _is_sparse(head: bytes) -> bool:
    """A vmdk that has its data in itself: of its two kinds the one with a descriptor says how large it is."""
    return head[:4] == b"KDMV" and len(head) >= 20 and bool(struct.unpack_from("<Q", head, 12)[0])
