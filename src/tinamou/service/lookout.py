"""Which machines there are and what they do, looked at once for all who ask at the same time, and what has changed since."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from tinamou.control import Event
from tinamou.errors import TinamouError
from tinamou.late import dataclass, field
from tinamou.machine.listing import rows
from tinamou.machine.reconcile import reconcile
from tinamou.monitor.ears import Ears
from tinamou.monitor.states import LOOK_SECONDS, UNKNOWN, State, at_once, state_of
from tinamou.service.feed import Feed
from tinamou.state.index import look
from tinamou.state.record import Record
from tinamou.system.loop_thread import in_thread

__all__ = ["Lookout", "Seen"]

_log = logging.getLogger(__name__)

_RENEWED, _FRESH = 0.1, 0.25
"""How old the list of machines is when it is made anew beside the answer, and when that is waited for."""
_ASKED, _ASKED_FRESH = 1.0, 1.0 + LOOK_SECONDS
"""The same for what QEMU said of itself: whoever is asked beside the answer has answered by then, or is unknown."""
_TIDY_SECONDS = 5.0
"""How often what a crash left is put right."""
_HEARD, _ALONE = 1.0, 10.0
"""Seconds between looks while somebody listens to events, and while nobody does."""

_Key = tuple[str, int, int]


@dataclass(frozen=True)
class Seen:
    """All machines at one moment: a row of each by name, and the records of those that are not at rest.

    ``pages`` are answers that were made of the rows, for who asks the same.
    """

    at: float
    rows: Sequence[dict[str, Any]]
    records: Sequence[Record]
    pages: dict[Any, Any] = field(default_factory=dict)


class Lookout:
    """Looks at the machines of the active host; tells the feed what has changed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: Seen | None = None
        self._states: dict[_Key, tuple[float, State]] = {}
        self._asking: dict[_Key, asyncio.Task[State]] = {}
        self._records: dict[_Key, Record] = {}
        self._looking: asyncio.Task[Seen] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._tidied = 0.0
        self._known: dict[str, str] | None = None
        self._compared = 0.0
        self._failed: dict[str, str] = {}

    def changed(self, name: str = "") -> None:
        """Something has been done with this machine: the next who asks is told what is now, whatever look is under way."""
        self._seen = self._looking = None
        for key in [key for key in self._states if name in ("", key[0])]:
            self._states[key] = (-math.inf, self._states[key][1])
        for key in [key for key in self._asking if name in ("", key[0])]:
            del self._asking[key]
        for key in [key for key in self._records if name == key[0]]:
            self._ask(self._records[key], key, time.monotonic())

    async def seen(self) -> Seen:
        """The machines as they are now; what a QEMU says of itself is as of three seconds ago at most.

        Who asks again and again is answered at once; nothing that was done here before is missing.
        """
        age = time.monotonic() - self._seen.at if self._seen is not None else math.inf
        if age >= _RENEWED and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # there may be nobody to tell
        if self._seen is not None and age < _FRESH:
            return self._seen
        assert self._looking is not None
        return await asyncio.shield(self._looking)

    async def _look(self) -> Seen:
        at, this = time.monotonic(), asyncio.current_task()
        await self._tidy_now_and_then(at)
        found = await in_thread(look)
        records = found.awake
        states = at_once(records) or await self._asked(records)
        seen = Seen(at, rows(found, records, states), records)
        if self._looking is this:
            self._seen = seen
        if at >= self._compared:
            self._compared = at
            self._compare(seen)
        return seen

    async def _tidy_now_and_then(self, at: float) -> None:
        """What a crash left is put right beside the looks; the first one waits for it."""
        if at - self._tidied > _TIDY_SECONDS and (self._tidying is None or self._tidying.done()):
            self._tidied = at
            self._tidying = asyncio.ensure_future(self._tidy())
        if self._tidying is not None and not self._compared:
            await self._tidying

    async def _tidy(self) -> None:
        try:
            said = await in_thread(reconcile)
        except (TinamouError, OSError) as error:
            self._complain("put in order", str(error))
            return
        self._failed.pop("put in order", None)
        for line in said:
            self._feed.tell("tidied", "", {"text": line})
        if said:
            self.changed()

    async def _asked(self, records: Sequence[Record]) -> list[State]:
        """Their states. Each QEMU is asked by one at a time, before what it said is old: who asks steadily waits for none.

        Nor is one waited for that did not answer last time.
        """
        now, waited = time.monotonic(), []
        keys = [(one.name, one.pid, one.started) for one in records]
        self._records = dict(zip(keys, records, strict=True))
        self._states = {key: self._states[key] for key in keys if key in self._states}
        for one, key in zip(records, keys, strict=True):
            at, state = self._states.get(key, (-math.inf, None))
            if now - at >= _ASKED:
                task = self._ask(one, key, now)
                if at == -math.inf or (now - at >= _ASKED_FRESH and state is not None and state.state != UNKNOWN):
                    waited.append(task)
        if waited:
            await asyncio.wait(waited)
        return [self._states[key][1] if key in self._states else State(UNKNOWN, "it changes just now") for key in keys]

    def _ask(self, record: Record, key: _Key, at: float) -> asyncio.Task[State]:
        def said(task: asyncio.Task[State]) -> None:
            if self._asking.get(key) is task:  # else it has changed since
                del self._asking[key]
                if not task.cancelled():
                    self._states[key] = (at, task.result())

        if key not in self._asking:
            self._asking[key] = asyncio.ensure_future(state_of(record))
            self._asking[key].add_done_callback(said)
        return self._asking[key]

    def _compare(self, seen: Seen) -> None:
        """Tell what came, went and does something else now."""
        now = {row["name"]: str(row["state"]) for row in seen.rows}
        before, self._known = self._known, now
        if before is None:
            return
        for name, state in now.items():
            if before.get(name) != state:
                self._feed.tell("machine", name, {"state": state, "before": before.get(name)})
        for name in before.keys() - now.keys():
            self._feed.tell("machine", name, {"state": "gone", "before": before[name]})

    async def run(self) -> None:
        """Look again and again, and listen to what QEMU tells while somebody listens here; until it is cancelled."""
        ears = _TellingEars(self._told)
        try:
            while True:
                try:
                    seen = await self.seen()
                    ears.follow(seen.records if self._feed.heard else ())
                    self._failed.pop("looked at", None)
                except (TinamouError, OSError) as error:
                    self._complain("looked at", str(error))
                await self._nap(ears)
        finally:
            await ears.close()

    async def _nap(self, ears: Ears) -> None:
        ears.woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD if self._feed.heard else _ALONE):
                await ears.woken.wait()
                self._seen = None

    def _complain(self, what: str, text: str) -> None:
        if text != self._failed.get(what):
            _log.warning("the machines could not be %s: %s", what, text)
        self._failed[what] = text

    def _told(self, name: str, event: Event) -> None:
        self.changed(name)
        self._feed.tell("qemu", name, {"event": event.name, **{key: str(value)[:200] for key, value in event.data.items()}})


class _TellingEars(Ears):
    """Ears that say what they hear."""

    def __init__(self, tell: Callable[[str, Event], None]) -> None:
        super().__init__()
        self._tell = tell

    def note(self, name: str, event: Event) -> None:
        super().note(name, event)
        self._tell(name, event)
