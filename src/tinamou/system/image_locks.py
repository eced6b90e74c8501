"""Whether another process has an image open for writing, by the locks QEMU and its tools hold.

QEMU holds shared open-file-description locks on single bytes: 100 + N for each permission N it uses, 200 + N for each it
does not share with others. Permission 1 is writing (source: QEMU block/file-posix.c).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["processes_with_open", "written_by_others"]

_USED_WRITE = 101
_FLOCK = struct.Struct("hhqqi4x")


def written_by_others(path: str | Path) -> bool:
    """Whether a QEMU, qemu-img or qemu-nbd, of any user, has the file open for writing now. Raises OSError."""
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _USED_WRITE, 1, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question))
        return bool(answer[0] != fcntl.F_UNLCK)


def processes_with_open(path: str | Path) -> Iterator[tuple[int, str]]:
    """The processes that have a file open, as number and name; of other users only for root."""
    status = Path(path).stat()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _holds(entry, status):
            with contextlib.suppress(OSError):
                yield (int(entry.name), (entry / "comm").read_text().strip())


def _holds(process: Path, wanted: os.stat_result) -> bool:
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
