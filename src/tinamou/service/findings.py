"""What is wrong with running machines and their host just now, as ``tinamou watch --once`` finds it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tinamou.monitor.look import Patience
from tinamou.monitor.watching import Watch

__all__ = ["Findings"]

_FRESH = 10.0
"""How old an answer may be, in seconds: guests are asked for it."""


class Findings:
    """The findings of one service: looked for when somebody asks, once for all who do."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._told: tuple[float, list[dict[str, Any]]] = (-_FRESH, [])

    async def now(self) -> list[dict[str, Any]]:
        """What somebody should be told, the gravest first; ``machine`` is None for the host's own."""
        async with self._turn:
            if time.monotonic() - self._told[0] >= _FRESH:
                looked = await Watch(patience=Patience(every=0)).look()
                wrong = [{"machine": name or None, **finding.to_json()} for name, finding in looked.wrong()]
                wrong.sort(key=lambda one: (one["severity"] != "bad", one["machine"] or ""))
                self._told = (time.monotonic(), wrong)
            return self._told[1]
