"""Reading logs that others write, some of whom nobody trusts: never more of them than they should be long.

``NAME`` is written to; ``NAME.1``, where there is one, holds what was written before it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tinamou.system.lock import locked

__all__ = ["FULL", "Followed", "complete", "kept", "last_lines", "older", "tail"]

FULL = 4 << 20
"""Bytes after which a log is put aside, and a new one begun."""

_TAIL = 64 << 10
_WRITTEN_SECONDS = 5.0


def older(path: Path) -> Path:
    """Where that is which was in the log before it was begun anew."""
    return path.with_name(f"{path.name}.1")


def complete(path: Path) -> None:
    """Return when the last words of a process that has ended are in its log, and their writer is gone (5 s at most)."""
    deadline = time.monotonic() + _WRITTEN_SECONDS
    with contextlib.suppress(OSError):
        while locked(path) and time.monotonic() < deadline:
            time.sleep(0.002)


def tail(path: Path, most: int = _TAIL) -> bytes:
    """The last bytes of a log; empty where there is none."""
    last = _end(path, most)
    return _end(older(path), most - len(last)) + last if len(last) < most else last


def kept(path: Path) -> bytes:
    """All of a log that is kept; of one that is longer than it should be, its end."""
    return tail(path, 2 * (FULL + _TAIL))


def last_lines(path: Path, count: int = 15) -> str:
    """The last lines of a log as text; empty where there is none."""
    return "\n".join(tail(path).decode(errors="replace").splitlines()[-count:])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """The log, None where it is none: a file nobody else put there under its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    with os.fdopen(descriptor, "rb", buffering=0) as log:
        yield log if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _end(path: Path, most: int) -> bytes:
    with _opened(path) as log:
        if log is None:
            return b""
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - most))
        return log.read(min(size, most))


class Followed:
    """A log as it grows, from an offset on; what comes too fast is left out."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._node = 0

    def more(self, most: int = _TAIL) -> bytes:
        """What was added since the last time, ``most`` bytes of it at most: the last ones."""
        with _opened(self._path) as log:
            if log is None:
                return b""
            node, rest = os.fstat(log.fileno()).st_ino, b""
            if node != self._node and self._node:  # it was begun anew
                rest, self._offset = self._rest(most), 0
            self._node = node
            fresh = self._from(log, most)
        return (rest + fresh)[-most:]

    def _rest(self, most: int) -> bytes:
        """What the log got before it was put aside, and was not read yet."""
        with _opened(older(self._path)) as log:
            return self._from(log, most) if log and os.fstat(log.fileno()).st_ino == self._node else b""

    def _from(self, log: BinaryIO, most: int) -> bytes:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(self._offset if self._offset <= size else 0, size - most))
        fresh = log.read(most)
        self._offset = log.tell()
        return fresh
