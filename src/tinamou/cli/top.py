"""The verb ``top``: what machines use, again and again, with rates."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tinamou.cli import output, plots
from tinamou.cli.grammar import Switch
from tinamou.cli.looks import Pair, host, look, plain
from tinamou.cli.loop import run_until_told
from tinamou.cli.stats import row, short
from tinamou.errors import SpecError
from tinamou.state import machines
from tinamou.system.shown import visible

COLUMNS = ("name", "state", "cpu", "used", "avail", "holds", "host", "swap", "read/s", "write/s", "in/s", "out/s")
"""Short: together they fit into a terminal of 80 columns."""

_LOOKS, _WIDE = 20, 104
"""Looks in the picture of how busy a machine was, and columns of a terminal from which on there is room for it."""


def command(*names: str, interval: float = 2.0, all_hosts: Switch = False, json: Switch = False) -> int:
    """Show what machines use, again and again; Ctrl-C ends it.

    Parameters
    ----------
    names
        The machines; all that run at the moment when left out.
    interval
        Seconds between two looks.
    all_hosts
        Machines of the other hosts, too, each host telling by itself; one that says nothing is shown as silent.
    json
        One line of JSON for each look.
    """
    if all_hosts:
        from tinamou.cli.all_looks import show_all

        if names:
            raise SpecError("--all-hosts shows all machines", fix="tinamou -H HOST top NAME… shows some of one host")
        return run_until_told(show_all(interval, json=json))
    for name in names:
        machines.find(name)
    if json:
        return run_until_told(look(names, interval, lambda pairs: print(jsonlib.dumps(plain(pairs)), flush=True)))
    if not sys.stdout.isatty():
        return run_until_told(look(names, interval, _print))
    from rich.live import Live

    lately = Lately()
    with Live(screen=True, auto_refresh=False) as live:
        wide = live.console.width >= _WIDE

        def show(pairs: list[Pair]) -> None:
            live.update(_screen(pairs, lately.told(pairs) if wide else None), refresh=True)

        return run_until_told(look(names, interval, show))


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


def _host_line(pairs: list[Pair]) -> str:
    free = host()
    held = sum(one.held.rss for one, _ in pairs if one.held)
    return f"host: {short(free['available'])} of {short(free['total'])} available, machines hold {short(held)}"
