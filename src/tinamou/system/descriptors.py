"""Open files of another process, taken as they are: the same file, place and mode (source: pidfd_getfd(2), kcmp(2))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["numbers_of", "taken", "taps_of"]

_PIDFD_GETFD = 438
_KCMP = {"x86_64": 312}
_libc = ctypes.CDLL(None, use_errno=True)


def taken(pid: int, number: int) -> int:
    """A descriptor of ours for what the process has open under that number. Raises OSError."""
    with Closing(os.pidfd_open(pid)) as process:
        descriptor = int(_libc.syscall(_PIDFD_GETFD, process, number, 0))
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"descriptor {number} of process {pid} cannot be taken: {os.strerror(code)}")
        return descriptor


def taps_of(pid: int, name: str) -> list[int]:
    """The numbers under which the process has queues of a tap interface open (source: tun_chr_show_fdinfo of Linux)."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            if f"iff:\t{name}" in entry.read_text().splitlines():
                found.append(int(entry.name))
    return sorted(found)


def numbers_of(pid: int, descriptor: int) -> list[int]:
    """The numbers under which the process has the very file open that we have. Raises OSError."""
    found, kcmp = [], _KCMP[os.uname().machine]
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        same = int(_libc.syscall(kcmp, os.getpid(), pid, 0, descriptor, int(entry.name)))
        if same == 0:
            found.append(int(entry.name))
        elif same < 0 and (code := ctypes.get_errno()) != errno.EBADF:  # that one was closed just now
            raise OSError(code, f"files of process {pid} cannot be compared: {os.strerror(code)}")
    return sorted(found)
