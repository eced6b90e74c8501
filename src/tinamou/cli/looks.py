"""Looks at the machines of this host, again and again, with what moved in between: what ``top`` shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinamou.late import asdict, replace
from tinamou.state import machines

if TYPE_CHECKING:
    from tinamou.monitor.stats import Rates, Reading
    from tinamou.state.record import Record

__all__ = ["Pair", "host", "look", "plain"]

Pair = tuple["Reading", "Rates | None"]
"""What was read of a machine, and what moved since the look before."""


async def look(names: Sequence[str], interval: float, show: Callable[[list[Pair]], None]) -> int:
    """Look until it is cancelled; the first look is shown too, for which there are no rates."""
    from tinamou.monitor.look import leave

    before: dict[str, Reading] = {}
    try:
        while True:
            began = time.monotonic()
            now = {one.name: one for one in await _readings(names, interval)}
            show([_paired(before.get(name), one) for name, one in now.items()])
            before = now
            await asyncio.sleep(max(0.1, interval - (time.monotonic() - began)))
    finally:
        await leave(_running(names))


def _paired(last: Reading | None, one: Reading) -> Pair:
    """A reading with the processor time and the rates since the last one."""
    from tinamou.monitor.processes import percent
    from tinamou.monitor.stats import rates

    if last is None:
        return one, None
    return replace(one, percent=percent(last.asked, one.spent, one.vcpus)), rates(last, one)


def _running(names: Sequence[str]) -> list[Record]:
    return [one for one in machines.awake() if one.running and (not names or one.name in names)]


async def _readings(names: Sequence[str], interval: float) -> list[Reading]:
    from tinamou.monitor.look import Patience
    from tinamou.monitor.stats import read

    patience = Patience(every=max(1, round(interval)), first=min(1.0, interval))
    return list(await asyncio.gather(*(read(one, patience) for one in _running(names))))


def host() -> dict[str, int]:
    """This host's memory, and what of it is available, in bytes."""
    from tinamou.monitor.host import look_at_host
    from tinamou.system.rooted import Rooted

    seen = look_at_host(Rooted(), {})
    return {"total": int(seen.total), "available": int(seen.available)}


def plain(pairs: list[Pair]) -> dict[str, Any]:
    """A look as data for JSON."""
    from tinamou.monitor import stats

    shown = [{**stats.plain(one), "per_second": _rounded(moving)} for one, moving in pairs]
    return {"at": round(time.time(), 3), "host": host(), "machines": shown}


def _rounded(moving: Rates | None) -> dict[str, float | None] | None:
    if moving is None:
        return None
    return {key: None if value is None else round(value, 1) for key, value in asdict(moving).items()}
