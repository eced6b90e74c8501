"""Locks between processes, held by the kernel and therefore gone with the process that held them."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tinamou.errors import StateError
from tinamou.system.closing import Closing

__all__ = ["LONG_SECONDS", "SECONDS", "at_once", "exclusive", "given_up", "holder", "locked", "take"]

SECONDS = 120.0
"""How long a lock is waited for that is held for moments only."""
LONG_SECONDS = 3600.0
"""The same for one that is held while an image is built, or a machine boots."""
given_up: ContextVar[Callable[[], bool]] = ContextVar("given_up", default=lambda: False)
"""Whether what this flow of control does is wanted no more."""
_MOMENT = 1.0
_LONGEST_NAP = 0.02


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] | None = None, *, seconds: float = LONG_SECONDS) -> Iterator[None]:
    """Hold an exclusive lock on a file (made when missing), waiting as long as another process holds it (flock(2)).

    ``on_wait`` is called once before waiting, when another process holds it. Raises StateError after ``seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, 0o600)  # older versions left some that everybody could open, and so hold
        take(descriptor, path, seconds=seconds, on_wait=on_wait)
        yield
    finally:
        os.close(descriptor)


def take(descriptor: int, path: Path, *, seconds: float = SECONDS, on_wait: Callable[[], None] | None = None) -> None:
    """Take the lock on an open file or folder; after a moment stderr says who is waited for.

    Raises StateError, naming the holder, after ``seconds``, or when it is `given_up`.
    """
    began, nap, said = time.monotonic(), 0.0005, False
    while not at_once(descriptor):
        waited = time.monotonic() - began
        if on_wait:
            on_wait()
            on_wait = None
        if waited > seconds or given_up.get()():
            why = f"{holder(descriptor)} has held {path} for {waited:.0f} s"
            raise StateError(f"{path.name} of {path.parent} is in the hands of another command", why=why, fix="end that one")
        if waited > _MOMENT and not said:
            said = True
            sys.stderr.write(f"tinamou: waiting for {holder(descriptor)}, which holds {path}\n")
        time.sleep(nap)
        nap = min(nap * 2, _LONGEST_NAP)


def at_once(descriptor: int) -> bool:
    """Take the lock on an open file or folder where nobody holds it; whether it was had."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(descriptor: int) -> str:
    """Who holds the lock (flock(2)) on an open file, in words: process number and command (source: proc_locks(5))."""
    status = os.fstat(descriptor)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(int(words[4]) for words in held if words[1] == "FLOCK" and words[5] == wanted and int(words[4]) > 0)
        command = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except (OSError, StopIteration, ValueError, IndexError):
        return "another process"
    return f"process {pid} ({command!a})".replace("'", "")


def locked(path: Path) -> bool:
    """Whether a process holds a lock on a file. Raises FileNotFoundError."""
    with Closing(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as descriptor:
        return not at_once(descriptor)
