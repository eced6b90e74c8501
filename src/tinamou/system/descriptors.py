"""Open files of another process, taken as they are: the same file, place and mode (source: pidfd_getfd(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

__all__ = ["taken", "taps_of"]

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


def taken(pid: int, number: int) -> int:
    """A descriptor of ours for what the process has open under that number. Raises OSError."""
    process = os.pidfd_open(pid)
    try:
        descriptor = int(_libc.syscall(_PIDFD_GETFD, process, number, 0))
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"descriptor {number} of process {pid} cannot be taken: {os.strerror(code)}")
        return descriptor
    finally:
        os.close(process)


def taps_of(pid: int, name: str) -> list[int]:
    """The numbers under which the process has queues of a tap interface open (source: tun_chr_show_fdinfo of Linux)."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            if f"iff:\t{name}" in entry.read_text().splitlines():
                found.append(int(entry.name))
    return sorted(found)
