"""A use case under way: its id, what it is about, how far it is, its result; it can be awaited and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar

from tinamou.errors import TinamouError
from tinamou.images.progress import Progress

__all__ = ["Operation", "State", "begin"]

T = TypeVar("T")
State = Literal["running", "done", "failed", "cancelled"]


class Operation(Generic[T]):
    """One call of a use case. ``started`` and ``ended`` are seconds since 1970, ``ended`` 0 while it runs.

    ``about`` is what it works on (a machine's name, for most), ``progress`` the last word of it and the fraction done, None
    where that is not known.
    """

    def __init__(self, verb: str, about: str) -> None:
        self.id: str = os.urandom(8).hex()
        self.verb = verb
        self.about = about
        self.started: float = time.time()
        self.ended: float = 0.0
        self.progress: tuple[str, float | None] = ("", None)
        self.error: TinamouError | None = None
        self._task: asyncio.Task[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._heard: list[Callable[[Operation[T]], None]] = []

    @property
    def state(self) -> State:
        """Whether it runs, or how it ended."""
        if self._task is None or not self._task.done():
            return "running"
        if self._task.cancelled():
            return "cancelled"
        return "failed" if self._task.exception() is not None else "done"

    def tell(self, text: str, fraction: float | None) -> None:
        """Note how far it is: what the use case calls as its `Progress`, also from a thread that works for it."""
        self.progress = (text, fraction)
        if self._loop is None or threading.get_ident() == self._thread:
            self._told()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody hears any more
            self._loop.call_soon_threadsafe(self._told_late)

    def _told_late(self) -> None:
        if self.state == "running":  # its end is told by itself, and once
            self._told()

    def listen(self, hear: Callable[[Operation[T]], None]) -> None:
        """Have ``hear`` called, on the loop, at every progress and at the end."""
        self._heard.append(hear)

    def cancel(self) -> None:
        """Ask it to end; it cleans up first. `result` returns when it has."""
        if self._task is not None:
            self._task.cancel()

    async def result(self) -> T:
        """What the use case returns, once it has ended. Raises what it raises, CancelledError when it was cancelled."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    def to_json(self) -> dict[str, object]:
        """The operation as plain data."""
        text, fraction = self.progress
        return {
            "id": self.id,
            "verb": self.verb,
            "about": self.about,
            "state": self.state,
            "started": self.started,
            "ended": self.ended or None,
            "progress": {"text": text, "fraction": fraction},
            "error": self.error.to_json() if self.error else None,
        }

    def _run(self, work: Awaitable[T]) -> None:
        async def whole() -> T:
            return await work

        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(whole())
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[T]) -> None:
        self.ended = time.time()
        error = None if task.cancelled() else task.exception()
        self.error = error if isinstance(error, TinamouError) else None
        self._told()

    def _told(self) -> None:
        for hear in self._heard:
            hear(self)


def begin(use_case: Callable[..., Awaitable[T]], about: str, *arguments: Any, **options: Any) -> Operation[T]:
    """Start a use case on the running loop: ``begin(start, "web", timeout=60.0)``; ``about`` is its first argument.

    A use case that tells its progress tells it the operation.
    """
    operation: Operation[T] = Operation(use_case.__name__.replace("_", " "), about)
    if "progress" in use_case.__annotations__ and use_case.__annotations__["progress"] in (Progress, "Progress"):
        options = {"progress": operation.tell, **options}
    operation._run(use_case(about, *arguments, **options))
    return operation
