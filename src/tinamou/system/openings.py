"""Tells when some process opens one of some files (inotify(7)), so that nobody has to look at them again and again."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

__all__ = ["Openings"]

_IN_OPEN = 0x20
_HEAD = struct.Struct("iIII")
"""struct inotify_event, without the name, which events of a file itself do not have."""


class Openings:
    """``heard`` functions by file; ``descriptor`` can be read when one of them is to be called, which `hear` does."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no inotify, or no more of it for this user."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._said(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._heard: dict[int, Callable[[], None]] = {}

    @staticmethod
    def _said(number: int) -> int:
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return number

    def listen(self, path: str, heard: Callable[[], None]) -> int:
        """Have ``heard`` called when the file is opened; a number for `forget`. Raises OSError."""
        name = ctypes.c_char_p(os.fsencode(path))
        number = self._said(self._libc.inotify_add_watch(self.descriptor, name, ctypes.c_uint32(_IN_OPEN)))
        self._heard[number] = heard
        return number

    def forget(self, number: int) -> None:
        """Call it no more."""
        if self._heard.pop(number, None) is not None:
            self._libc.inotify_rm_watch(self.descriptor, number)

    def hear(self) -> None:
        """Call what is to be called for what was opened since; without waiting."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at + _HEAD.size <= len(data):
            number, _, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            for one in [*self._heard.values()] if number < 0 else [self._heard.get(number)]:  # -1: some were lost
                if one is not None:
                    one()

    def close(self) -> None:
        """Listen no more."""
        self._heard.clear()
        os.close(self.descriptor)
