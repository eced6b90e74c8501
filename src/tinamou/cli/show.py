"""The verb ``show``: everything known about one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinamou.cli import output, plots
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import StateError
from tinamou.machine.listing import described
from tinamou.monitor.states import at_once, state_of
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.units import Size


def command(name: str, /, *, timeline: Switch = False, json: Switch = False) -> None:
    """Show one machine.

    Parameters
    ----------
    timeline
        The stages of its last start alone, one after another.
    """
    record = machines.find_usable(name)
    if timeline:
        _timeline(record, json)
        return
    data = described(record)
    [seen] = at_once([record]) or [run_until_done(state_of(record))]
    data |= {"state": seen.state, "why": seen.why or None}
    if json:
        output.print_json(data)
        return
    data["created"] = output.when(data["created"])
    data |= {name: Size(data[name]).short for name in ("memory", "storage")}
    rows = list(_flat(data))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:>{width}}  {value}")


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of a nested table, ``spec.cpu.count``, ``spec.net[0].type``; what is empty is left out."""
    for key, value in data.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            yield from _flat({f"{name}[{number}]": one for number, one in enumerate(value)})
        elif value not in (None, "", []):
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else value


def _timeline(record: Record, json: bool) -> None:
    if not record.timings:
        raise StateError(f"{record.name} has not been started", fix=f"tinamou start {record.name}")
    if json:
        output.print_json([{"stage": stage, "seconds": seconds} for stage, seconds in record.timings.items()])
        return
    print("\n".join(plots.timeline(record.timings)))
