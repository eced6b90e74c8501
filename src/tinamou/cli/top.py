"""The verb ``top``: what machines use, again and again, with rates."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinamou.cli import output, plots
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_told
from tinamou.cli.stats import row, short
from tinamou.late import asdict, replace
from tinamou.state import machines
from tinamou.system.shown import visible

if TYPE_CHECKING:
    from tinamou.monitor.stats import Rates, Reading
    from tinamou.state.record import Record

COLUMNS = ("name", "state", "cpu", "used", "avail", "holds", "host", "swap", "read/s", "write/s", "in/s", "out/s")
"""Short: together they fit into a terminal of 80 columns."""

_LOOKS, _WIDE = 20, 104
"""Looks in the picture of how busy a machine was, and columns of a terminal from which on there is room for it."""

Pair = tuple["Reading", "Rates | None"]


def command(*names: str, interval: float = 2.0, json: Switch = False) -> int:
    """Show what machines use, again and again; Ctrl-C ends it.

    Parameters
    ----------
    names
        The machines; all that run at the moment when left out.
    interval
        Seconds between two looks.
    json
        One line of JSON for each look.
    """
    for name in names:
        machines.find(name)
    if json:
        return run_until_told(_look(names, interval, lambda pairs: print(jsonlib.dumps(_plain(pairs)), flush=True)))
    if not sys.stdout.isatty():
        return run_until_told(_look(names, interval, _print))
    from rich.live import Live

    lately = Lately()
    with Live(screen=True, auto_refresh=False) as live:
        wide = live.console.width >= _WIDE

        def show(pairs: list[Pair]) -> None:
            live.update(_screen(pairs, lately.told(pairs) if wide else None), refresh=True)

        return run_until_told(_look(names, interval, show))


class Lately:
    """The processor of each machine at the last looks, as small pictures."""

    def __init__(self) -> None:
        self._percent: dict[str, deque[float]] = {}

    def told(self, pairs: Sequence[Pair]) -> dict[str, str]:
        """Machine → its picture, this look's number at the right; those that are gone are forgotten."""
        self._percent = {one.name: self._percent.get(one.name, deque(maxlen=_LOOKS)) for one, _ in pairs}
        for one, _ in pairs:
            if one.percent is not None:
                self._percent[one.name].append(one.percent)
        return {name: plots.spark(values, 100.0) for name, values in self._percent.items()}


async def _look(names: Sequence[str], interval: float, show: Callable[[list[Pair]], None]) -> int:
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


def _cells(pair: Pair) -> dict[str, str]:
    one, moving = pair
    cells = row(one)
    rate = {"read/s": "read", "write/s": "written", "in/s": "received", "out/s": "sent"}
    return {
        **cells,
        "cpu": "-" if one.percent is None else f"{one.percent:.0f}%",
        "avail": cells["available"],
        "holds": cells["holds"] if cells["holds"] == cells["of"] else f"{cells['holds']}/{cells['of']}",
        "host": cells["on host"],
        **{column: short(getattr(moving, what) if moving else None) for column, what in rate.items()},
    }


def _print(pairs: list[Pair]) -> None:
    output.table([_cells(pair) for pair in pairs], COLUMNS)
    print(flush=True)


def _screen(pairs: list[Pair], lately: Mapping[str, str] | None = None) -> Any:
    """The table on a terminal, below a line on the host; with how busy machines were ``lately`` where there is room."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in COLUMNS:
        table.add_column(column.upper(), justify="left" if column in ("name", "state") else "right", no_wrap=True)
    if lately is not None:
        table.add_column("CPU LATELY", no_wrap=True)
    for pair in pairs:
        cells, more = _cells(pair), [] if lately is None else [lately.get(pair[0].name, "")]
        table.add_row(*(visible(cells[column]) for column in COLUMNS), *more)
    missing = [Text(visible(f"{one.name}: no {text}"), style="dim") for one, _ in pairs for text in one.missing]
    return Group(Text(_host_line(pairs), style="dim"), table, *missing)


def _host() -> dict[str, int]:
    from tinamou.monitor.host import look_at_host
    from tinamou.system.rooted import Rooted

    seen = look_at_host(Rooted(), {})
    return {"total": int(seen.total), "available": int(seen.available)}


def _host_line(pairs: list[Pair]) -> str:
    host = _host()
    held = sum(one.held.rss for one, _ in pairs if one.held)
    return f"host: {short(host['available'])} of {short(host['total'])} available, machines hold {short(held)}"


def _plain(pairs: list[Pair]) -> dict[str, Any]:
    from tinamou.monitor.stats import plain

    shown = [{**plain(one), "per_second": _rounded(moving)} for one, moving in pairs]
    return {"at": round(time.time(), 3), "host": _host(), "machines": shown}


def _rounded(moving: Rates | None) -> dict[str, float | None] | None:
    if moving is None:
        return None
    return {key: None if value is None else round(value, 1) for key, value in asdict(moving).items()}
