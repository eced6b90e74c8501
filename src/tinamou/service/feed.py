"""What happens, as numbered events that are kept for whoever comes back: ``STATE/service/events.jsonl``.

An event is ``{"id": 17, "at": seconds since 1970, "kind": "operation", "about": "web", "data": {…}}``. Numbers only
grow, also when the service is killed and started again. Progress of operations is told to whoever listens just then, without
a number, and not kept. Who listens too slowly is cut off, and goes on after the last
number it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

__all__ = ["Event", "Feed", "Listener"]

Event = dict[str, Any]

_REMEMBERED = 2000
_MOST = 64 << 20
_REWRITE = 4 << 20
"""Bytes of the file from which on only what is remembered is kept, where it has doubled since that was done last."""
_WAITING = 512
"""Events that may wait for a listener before it is cut off."""


class Listener:
    """Somebody who hears of events from a moment on; ``cut`` is called when they are too slow, and nothing comes after."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self._waiting: deque[Event] = deque()
        self._woken = asyncio.Event()
        self._cut = cut
        self.slow: bool = False

    def hear(self, event: Event) -> None:
        """Put an event into the line."""
        if self.slow:
            return
        if len(self._waiting) >= _WAITING:
            self.slow = True
            self._waiting.clear()
            self._cut()
        else:
            self._waiting.append(event)
        self._woken.set()

    async def next(self, seconds: float) -> Event | None:
        """The next event; None after so many seconds without one, or when the listener was cut off."""
        if not self._waiting and not self.slow:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        return self._waiting.popleft() if self._waiting else None


class Feed:
    """The events of one service."""

    def __init__(self, state: Path) -> None:
        self._path = state / "service/events.jsonl"
        self._events: deque[Event] = deque(maxlen=_REMEMBERED)
        self._listeners: set[Listener] = set()
        self._size = self._rewritten = 0

    def open(self) -> None:
        """Read what earlier services have written; a line that was cut short by a kill is left out."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(OSError):
            for line in read_own(self._path, most=_MOST).splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                    event = json.loads(line)
                    if type(event["id"]) is int and event["id"] > self.last:
                        self._events.append(event)
        self._rewrite()

    @property
    def last(self) -> int:
        """The number of the newest event; 0 where there has been none."""
        return int(self._events[-1]["id"]) if self._events else 0

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def tell(self, kind: str, about: str, data: dict[str, Any]) -> None:
        """Something happened: write it down and tell whoever listens."""
        event = {"id": self.last + 1, "at": round(time.time(), 3), "kind": kind, "about": about, "data": data}
        self._events.append(event)
        text = json.dumps(event, default=str) + "\n"
        with contextlib.suppress(OSError), self._path.open("a") as file:  # a full disk keeps nobody from listening
            file.write(text)
        self._size += len(text)
        if self._size > max(_REWRITE, 2 * self._rewritten):
            self._rewrite()
        self._spread(event)

    def tell_alone(self, kind: str, about: str, data: dict[str, Any]) -> None:
        """Something goes on: tell whoever listens, and keep nothing of it. The event has no number."""
        self._spread({"at": round(time.time(), 3), "kind": kind, "about": about, "data": data})

    def _spread(self, event: Event) -> None:
        for listener in [*self._listeners]:
            listener.hear(event)

    def _rewrite(self) -> None:
        text = "".join(f"{json.dumps(event, default=str)}\n" for event in self._events)
        with contextlib.suppress(OSError):
            replace_text(self._path, text)
        self._size = self._rewritten = len(text)

    def since(self, number: int) -> tuple[list[Event], bool]:
        """The events after that number, and whether some of those are no longer known (or never were: a number to come)."""
        first = int(self._events[0]["id"]) if self._events else 1
        return [event for event in self._events if event["id"] > number], number + 1 < first or number > self.last

    @contextlib.asynccontextmanager
    async def listening(self, cut: Callable[[], None] = lambda: None) -> AsyncIterator[Listener]:
        """A listener until the block ends."""
        listener = Listener(cut)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
