"""The verb ``ls``: every machine and what it is doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.machine.reconcile import reconcile
from tinamou.monitor.states import State, at_once, states_of
from tinamou.state import machines
from tinamou.state.index import Look, look
from tinamou.state.record import Record

COLUMNS = ("name", "state", "image", "arch", "accel", "pid", "age")


def command(
    *,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
    json: Switch = False,
) -> None:
    """List machines.

    Parameters
    ----------
    quiet
        Only their names.
    """
    found = look()
    for line in reconcile(found):
        output.warn(line)
    records = machines.awake(found)
    if quiet:
        names = sorted([*(row[0] for row in found.rows()), *(record.name for record in records)])
        print(*names, sep="\n", end="\n" if names else "")
        return
    if (states := at_once(records)) is None:
        states = run_until_done(states_of(records))
    lines = _lines(found, records, states)
    why = {record.name: seen.why for record, seen in zip(records, states, strict=True)}
    if json:
        rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        output.print_json(
            [{**row, "pid": int(row["pid"] or 0) or None, "why": why.get(row["name"]) or None} for row in rows]
        )
        return
    output.lines(COLUMNS, lines)
    for name in sorted(name for name in why if why[name]):
        output.warn(f"{name}: {why[name]}")


def _lines(found: Look, records: Sequence[Record], states: Sequence[State]) -> list[list[str]]:
    """What is shown of each machine, by name: those at rest as they were found, the others as they are."""
    now = time.time()
    lines = [
        [name, "stopped", image, arch, accel, "", _age(now - created)]
        for name, image, arch, accel, created, _ in found.rows()
    ]
    for one, seen in zip(records, states, strict=True):
        lines.append([one.name, seen.state, one.image, one.arch, one.accel, str(one.pid or ""), _age(now - one.created)])
    return sorted(lines) if records else lines


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
