"""One operation at a time changes a machine: the next one waits a while, then is told who is at it."""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state.moves import refuse_elsewhere
from tinamou.state.record import Record, newest
from tinamou.system.lock import at_once
from tinamou.system.remove import remove_tree

__all__ = ["busy_with", "turn", "turn_blocking"]

WAIT_SECONDS = 10.0
"""How long an operation waits for the one before it: most take less, a backup takes hours."""
_PAUSE = 0.02

_ours: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("ours", default=frozenset())
"""The machines whose turn this flow of control has: an operation made of others takes it once."""


_OF_A_TEMPLATE = frozenset({"backup", "check", "clone", "commit", "disk ls", "export", "rename", "rm", "template"})
"""What is done with a template: nothing of it changes what its guest would find."""


_OF_A_MOVE = frozenset({"move", "rm", "settle"})
"""What is done with a machine that has gone to another host, or comes from one."""


@contextlib.asynccontextmanager
async def turn(record: Record, what: str, *, wait: float = WAIT_SECONDS) -> AsyncIterator[Record]:
    """The machine is this operation's to change until the block ends; its newest record.

    ``what`` is what others are told it does. Stopping and ending a machine need no turn: they are never kept from it.
    Raises StateError, naming who is at it, after ``wait`` seconds, and for a machine that is gone.
    """
    if _is_ours(record):
        yield newest(record)
        return
    with _opened(record.path) as lock:
        deadline = time.monotonic() + wait
        while not _has_come(lock, record, deadline):
            import asyncio

            await asyncio.sleep(_PAUSE)
        with _signed(lock, record, what) as now:
            yield now


@contextlib.contextmanager
def turn_blocking(record: Record, what: str, *, wait: float = WAIT_SECONDS) -> Iterator[Record]:
    """As `turn`, for what is not asynchronous."""
    if _is_ours(record):
        yield newest(record)
        return
    with _opened(record.path) as lock:
        deadline = time.monotonic() + wait
        while not _has_come(lock, record, deadline):
            time.sleep(_PAUSE)
        with _signed(lock, record, what) as now:
            yield now


def _has_come(lock: int, record: Record, deadline: float) -> bool:
    if not (taken := at_once(lock)) and time.monotonic() >= deadline:
        why = f"it is being changed by {busy_with(record) or 'another command'}"
        raise StateError(f"machine {record.name} is busy", why=why, fix="wait for that to end, or end it")
    return taken


def _refuse_template(record: Record, what: str) -> None:
    if record.template and what not in _OF_A_TEMPLATE:
        why = "a template is what clones are made of, and stays as it is"
        fix = (
            f"tinamou clone {record.name} NAME, and use that; tinamou template --undo {record.name} makes it a machine again"
        )
        raise StateError(f"{record.name} is a template: no {what}", why=why, fix=fix)


def _is_ours(record: Record) -> bool:
    return str(record.path.resolve()) in _ours.get()


@contextlib.contextmanager
def _signed(lock: int, record: Record, what: str) -> Iterator[Record]:
    """The lock says whose it is, until the block ends; where it says so already, that one was killed and left things."""
    if os.fstat(lock).st_size:
        for staging in record.path.glob(f"*{files.STAGING}"):
            remove_tree(staging)
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"what": what, "pid": os.getpid(), "since": time.time()}).encode(), 0)
    mark = _ours.set(_ours.get() | {str(record.path.resolve())})
    try:
        now = newest(record)
        _refuse_template(now, what)
        if what not in _OF_A_MOVE:
            refuse_elsewhere(now, f"changed ({what})")
        yield now
    finally:
        with contextlib.suppress(ValueError):  # left in another context than it was entered in: that one is over
            _ours.reset(mark)
        os.ftruncate(lock, 0)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    try:
        lock = os.open(directory / files.OPERATION, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise StateError(f"machine {directory.name} is gone", why="another command removed it", fix="tinamou ls") from None
    try:
        yield lock
    finally:
        os.close(lock)


def busy_with(record: Record) -> str:
    """Who is changing the machine, in words: ``snapshot create (process 4711, for 12 s)``; empty where nobody is."""
    try:
        with _opened(record.path) as lock:
            if at_once(lock):
                return ""
            held = json.loads(os.pread(lock, 4096, 0))
            return f"{held['what']} (process {held['pid']}, for {max(time.time() - held['since'], 0.0):.0f} s)"
    except (StateError, ValueError, KeyError, TypeError):
        return "another command"
