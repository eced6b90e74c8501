"""Whether another process has an image open for writing, by the locks QEMU and its tools hold.

QEMU holds shared open-file-description locks on single bytes: 100 + N for each permission N it uses, 200 + N for each it
does not share with others. Permission 0 is reading what stays as it is, 1 is writing (source: QEMU block/file-posix.c).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["hold", "processes_with_open", "written_by_others"]

_USED_READ, _USED_WRITE, _UNSHARED_WRITE = 100, 101, 201
_FLOCK = struct.Struct("hhqqi4x")


def written_by_others(path: str | Path) -> bool:
    """Whether a QEMU, qemu-img or qemu-nbd, of any user, has the file open for writing now. Raises OSError."""
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        return _held(descriptor, _USED_WRITE)


def hold(descriptor: int, *, write: bool) -> None:
    """Hold the locks of a QEMU that alone writes the open file, or reads what nobody writes, until nobody has it open.

    For a file that QEMU uses in another way than as a disk, for which it takes none. Raises BlockingIOError where another
    one holds locks that do not go with these, OSError.
    """
    for lock in (_USED_WRITE if write else _USED_READ, _UNSHARED_WRITE):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, lock, 1, 0))
    if _held(descriptor, _USED_WRITE) or (write and _held(descriptor, _UNSHARED_WRITE)):
        raise BlockingIOError(errno.EAGAIN, "another machine or program uses it")


def _held(descriptor: int, lock: int) -> bool:
    """Whether somebody who opened the file apart from this descriptor holds a lock."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, lock, 1, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question))
    return bool(answer[0] != fcntl.F_UNLCK)


def processes_with_open(path: str | Path) -> Iterator[tuple[int, str]]:
    """The processes that have a file open, as number and name; of other users only for root."""
    status = Path(path).stat()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _has_open(entry, status):
            with contextlib.suppress(OSError):
                yield (int(entry.name), (entry / "comm").read_text().strip())


def _has_open(process: Path, wanted: os.stat_result) -> bool:
    try:
        for link in (process / "fd").iterdir():
            try:
                held = link.stat()
            except OSError:
                continue
            if (held.st_dev, held.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:
        return False
    return False
