"""Runs a command in the lab with its chroot as the root of a mount namespace: AppArmor sees paths from that on."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_NEWNS, _MOVE, _PRIVATE_BELOW = 0x20000, 0x2000, 0x44000
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: bytes | None, flags: int) -> None:
    if _libc.mount(source, b"/", None, flags, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Leave the chroot, in a mount namespace of its own, and put what it was in place of the root."""
    here, below = Path.cwd(), Path("/tmp/below")
    if _libc.unshare(_NEWNS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    below.mkdir(exist_ok=True)
    os.chdir("/")
    os.chroot(below)
    for _ in range(20):
        os.chdir("..")
    os.chroot(".")
    _mount(None, _PRIVATE_BELOW)
    os.chdir("/lab")
    _mount(b".", _MOVE)
    os.chroot(".")
    os.chdir(here)
    os.execvp(sys.argv[1], sys.argv[1:])


main()
