"""What a folder's filesystem offers: room, kind, shared extents (source: statvfs(3), ioctl_ficlone(2), ioctl_iflags(2))."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile

from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["Folder", "clone", "examine"]

_FICLONE = 0x40049409
_FS_IOC_GETFLAGS = 0x80086601
_FS_NOCOW_FL = 0x00800000


@dataclass(frozen=True)
class Folder:
    """``reflink`` and ``copy_on_write`` are None where it could not be tried (no write permission)."""

    path: str
    kind: str
    total: Size
    free: Size
    inodes_free: int
    reflink: bool | None
    copy_on_write: bool | None


def examine(path: str) -> Folder | None:
    """The filesystem that holds ``path``, or the nearest folder above that exists; None when there is none."""
    while path and not os.path.isdir(path):  # noqa: PTH112
        path = os.path.dirname(path)  # noqa: PTH120
    try:
        room = os.statvfs(path)
    except OSError:
        return None
    kind = _kind(path)
    reflink, nocow = _try(path)
    copies = kind in ("btrfs", "bcachefs", "zfs")
    return Folder(
        path,
        kind,
        Size(room.f_blocks * room.f_frsize),
        Size(room.f_bavail * room.f_frsize),
        room.f_favail,
        reflink,
        copies and not nocow,
    )


def clone(source: int, target: int) -> bool:
    """Make an open file share all blocks of another one (a reflink); False where that cannot be. Raises OSError."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV):
            return False
        raise
    return True


def _kind(path: str) -> str:
    best, kind = "", ""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123
        for line in mounts:
            _, place, found, *_ = line.split(" ")
            inside = os.path.realpath(path) + "/"
            if inside.startswith(place.rstrip("/") + "/") and len(place) >= len(best):
                best, kind = place, found
    return kind


def _try(path: str) -> tuple[bool | None, bool]:
    """Clones one byte from a file to another, both without a name; and reads whether new files opt out of copying."""
    try:
        with tempfile.TemporaryFile(dir=path) as one, tempfile.TemporaryFile(dir=path) as two:
            one.write(b"\0" * 4096)
            one.flush()
            return clone(one.fileno(), two.fileno()), bool(_flags(one.fileno()) & _FS_NOCOW_FL)
    except OSError:
        return None, False


def _flags(descriptor: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, b"\0" * 8), "little")
    except OSError:
        return 0
