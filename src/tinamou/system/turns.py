"""Taking turns across processes: a lock on a file, and a sign by which the holder sees that others wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tinamou.system.closing import Closing
from tinamou.system.lock import at_once, locked

__all__ = ["Turn"]


class Turn:
    """One user of a thing at a time. The locks are flock(2): they end with the process, however it ends.

    ``path`` gets the lock and the holder's process number, ``path``.wait carries the sign of those who wait.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held = -1
        self._sign = -1
        self._ours = True

    @staticmethod
    def _opened(path: str) -> tuple[int, bool]:
        """A file to lock, and whether it may be written to: one that may only be read is another user's."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), True
        except PermissionError:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False

    def __del__(self) -> None:
        self.give()
        self.stop_waiting()

    @property
    def held(self) -> bool:
        """Whether this object has the turn."""
        return self._held >= 0

    def take(self) -> bool:
        """Take the turn if it is free, without waiting. Raises OSError when the file cannot be made."""
        if self.held:
            return True
        lock, self._ours = self._opened(self._path)
        if not at_once(lock):
            os.close(lock)
            return False
        if self._ours:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._held = lock
        self.stop_waiting()
        return True

    def give(self) -> None:
        """Give the turn back."""
        if self.held:
            if self._ours:
                os.ftruncate(self._held, 0)
            os.close(self._held)
            self._held = -1

    def wait(self) -> None:
        """Show the sign of those who wait."""
        if self._sign < 0:
            self._sign, _ = self._opened(f"{self._path}.wait")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._sign, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def stop_waiting(self) -> None:
        """Take the sign away."""
        if self._sign >= 0:
            os.close(self._sign)
            self._sign = -1

    def wanted(self) -> bool:
        """Whether somebody else waits."""
        try:
            return locked(Path(f"{self._path}.wait"))
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def sign(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """The file that everybody opens who wants the turn from now on, and whether somebody did before.

        Raises OSError where it cannot be made.
        """
        path = f"{self._path}.wait"
        sign, _ = self._opened(path)

        def shown() -> bool:
            if not at_once(sign):
                return True
            fcntl.flock(sign, fcntl.LOCK_UN)
            return False

        try:
            yield path, shown
        finally:
            os.close(sign)

    def holder(self) -> int:
        """The process number of the one who has the turn; 0 when nobody has it, or it cannot be told."""
        with contextlib.suppress(OSError, ValueError), Closing(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)) as lock:
            return int(os.read(lock, 20) or b"0")
        return 0
