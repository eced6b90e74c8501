"""Which machines there are and what they do, looked at once for all who ask at the same time, and what has changed since."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from tinamou.control import Event
from tinamou.errors import TinamouError
from tinamou.late import dataclass
from tinamou.machine.listing import rows
from tinamou.machine.reconcile import reconcile
from tinamou.monitor.ears import Ears
from tinamou.monitor.states import State, at_once, states_of
from tinamou.service.feed import Feed
from tinamou.state import machines
from tinamou.state.index import look
from tinamou.state.record import Record
from tinamou.system.loop_thread import in_thread

__all__ = ["Lookout", "Seen"]

_log = logging.getLogger(__name__)

_FRESH, _ASKED_SECONDS, _TIDY_SECONDS = 0.1, 1.0, 5.0
"""How old the list of machines may be, and what QEMU said; how often what a crash left is put right."""
_HEARD, _ALONE = 1.0, 10.0
"""Seconds between looks while somebody listens to events, and while nobody does."""


@dataclass(frozen=True)
class Seen:
    """All machines at one moment: a row of each by name, and the records of those that are not at rest."""

    at: float
    rows: Sequence[dict[str, Any]]
    records: Sequence[Record]


class Lookout:
    """Looks at the machines of the active host; tells the feed what has changed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: Seen | None = None
        self._states: dict[tuple[str, int, int], tuple[float, State]] = {}
        self._looking: asyncio.Task[Seen] | None = None
        self._tidied = 0.0
        self._known: dict[str, str] | None = None

    def changed(self) -> None:
        """Something has been done: the next who asks is told what is now."""
        self._seen = None
        self._states.clear()

    async def seen(self) -> Seen:
        """The machines as they are now; what a QEMU says of itself is as of a second ago at most."""
        if self._seen is not None and time.monotonic() - self._seen.at < _FRESH:
            return self._seen
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Seen:
        at = time.monotonic()
        if tidy := at - self._tidied > _TIDY_SECONDS:
            self._tidied = at
        found, records, said = await in_thread(_found, tidy)
        for line in said:
            self._feed.tell("tidied", "", {"text": line})
        states = at_once(records) or await self._asked(records)
        self._seen = seen = Seen(at, rows(found, records, states), records)
        self._compare(seen)
        return seen

    async def _asked(self, records: Sequence[Record]) -> list[State]:
        """Their states, by asking each QEMU that was not asked just now."""
        now = time.monotonic()
        keys = [(one.name, one.pid, one.started) for one in records]
        self._states = {key: self._states[key] for key in keys if key in self._states}
        old = [key for key in keys if now - self._states.get(key, (-_ASKED_SECONDS, None))[0] >= _ASKED_SECONDS]
        wanted = [one for one, key in zip(records, keys, strict=True) if key in set(old)]
        for key, state in zip(old, await states_of(wanted), strict=True):
            self._states[key] = (now, state)
        return [self._states[key][1] if key in self._states else State("unknown", "it changes just now") for key in keys]

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
        ears, failed = _TellingEars(self._told), ""
        try:
            while True:
                try:
                    seen = await self.seen()
                    ears.follow(seen.records if self._feed.heard else ())
                    failed = ""
                except (TinamouError, OSError) as error:
                    if failed != str(error):
                        _log.warning("the machines could not be looked at: %s", error)
                    failed = str(error)
                await self._nap(ears)
        finally:
            await ears.close()

    async def _nap(self, ears: Ears) -> None:
        ears.woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD if self._feed.heard else _ALONE):
                await ears.woken.wait()
            self.changed()

    def _told(self, name: str, event: Event) -> None:
        self._feed.tell("qemu", name, {"event": event.name, **{key: str(value)[:200] for key, value in event.data.items()}})


class _TellingEars(Ears):
    """Ears that say what they hear."""

    def __init__(self, tell: Callable[[str, Event], None]) -> None:
        super().__init__()
        self._tell = tell

    def note(self, name: str, event: Event) -> None:
        super().note(name, event)
        self._tell(name, event)


def _found(tidy: bool) -> tuple[Any, list[Record], list[str]]:
    found = look()
    said = reconcile(found) if tidy else []
    return found, machines.awake(found), said
