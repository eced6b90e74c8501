"""What is wrong with running machines and their host just now, as ``tinamou watch --once`` finds it, and what guests say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from tinamou.monitor.look import Patience
from tinamou.monitor.observation import Observation
from tinamou.monitor.watching import Watch
from tinamou.system.loop_thread import dropped

__all__ = ["Findings"]

_FRESH, _LATELY = 10.0, 20.0
"""How old an answer may be, in seconds, for a person and for a scrape: guests are asked for it."""

_log = logging.getLogger(__name__)


def _said(looking: asyncio.Task[Any]) -> None:
    """Why a look that nobody waited for failed."""
    if not looking.cancelled() and (error := looking.exception()) is not None:
        _log.warning("what is wrong could not be found out: %s", error)


class Findings:
    """The findings of one service: looked for when somebody asks, once for all who do."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._told: tuple[float, list[dict[str, Any]]] = (-_LATELY, [])
        self._looking: asyncio.Task[list[dict[str, Any]]] | None = None
        self.seen: Mapping[str, Observation] = {}
        """What was seen of each machine at the last look."""

    def lately(self) -> list[dict[str, Any]]:
        """What was found last, at once: what is older than `_LATELY` seconds is looked for anew meanwhile."""
        if time.monotonic() - self._told[0] >= _LATELY and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self.now())
            self._looking.add_done_callback(_said)
        return self._told[1]

    async def ended(self) -> None:
        """Look no more."""
        if self._looking is not None:
            await dropped(self._looking)

    async def now(self) -> list[dict[str, Any]]:
        """What somebody should be told, the gravest first; ``machine`` is None for the host's own."""
        async with self._turn:
            if time.monotonic() - self._told[0] >= _FRESH:
                looked = await Watch(patience=Patience(every=0), share=True).look()
                wrong = [{"machine": name or None, **finding.to_json()} for name, finding in looked.wrong()]
                wrong.sort(key=lambda one: (one["severity"] != "bad", one["machine"] or ""))
                self._told, self.seen = (time.monotonic(), wrong), looked.seen
            return self._told[1]
