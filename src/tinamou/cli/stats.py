"""The verb ``stats``: what machines use of processor, memory, disks and network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import ControlError
from tinamou.monitor.states import UNKNOWN
from tinamou.state import machines
from tinamou.units import Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinamou.monitor.stats import Reading
    from tinamou.state.record import Record

COLUMNS = (
    "name", "cpu", "used", "available", "holds", "of", "on host", "swap", "read", "written", "on disk", "room", "received",
    "sent",
)  # fmt: skip


def command(*names: str, interval: float = 0.5, json: Switch = False) -> int:
    """Show what machines use: processor time, memory in the guest and on the host, disks, network.

    One whose QEMU does not answer is shown without numbers; where it was named, that is the exit status too.

    Parameters
    ----------
    names
        The machines; all that run when left out.
    interval
        Seconds over which processor time is measured.
    """
    from tinamou.monitor.stats import plain

    records = running(names)
    readings = run_until_done(_measure(records, interval))
    status = ControlError.code if names and any(one.state == UNKNOWN for one in readings) else 0
    if json:
        output.print_json([plain(one) for one in readings])
        return status
    output.table([row(one) for one in readings], COLUMNS)
    for one in readings:
        for missing in one.missing:
            output.warn(f"{one.name}: no {missing}")
    return status


def running(names: Sequence[str]) -> list[Record]:
    """The machines of these names, all that run where there are none. Raises StateError for one that does not run."""
    from tinamou.machine import life
    from tinamou.machine.reconcile import reconcile

    output.warn(*reconcile())
    if names:
        return [life.running(name) for name in names]
    return [record for record in machines.awake() if record.running]


async def _measure(records: Sequence[Record], interval: float) -> list[Reading]:
    """All at once; those that have ended meanwhile are left out."""
    from tinamou.monitor.stats import measure

    found = await asyncio.gather(*(measure(record, interval) for record in records))
    ended = {record.name for record in records if not record.running}
    return [one for one in found if one.state != UNKNOWN or one.name not in ended]


def row(one: Reading) -> dict[str, str]:
    """A reading as the cells of a table; ``-`` where nothing is known."""
    memory, held = one.memory, one.held
    places = {disk.place.device: disk.place.free for disk in one.disks if disk.place}
    return {
        "name": one.name,
        "state": one.state,
        "cpu": "-" if one.percent is None else f"{one.percent:.0f}% of {one.vcpus}",
        "used": short(memory.used if memory else None),
        "available": short(memory.available if memory else None),
        "holds": short(memory.holds if memory else None),
        "of": short(memory.size if memory else None),
        "on host": short(held.rss if held else None),
        "swap": short(held.swap if held else None),
        "read": short(one.moved("read")),
        "written": short(one.moved("written")),
        "on disk": short(one.moved("allocated")),
        "room": short(min(places.values(), default=None)),
        "received": short(one.carried("received")),
        "sent": short(one.carried("sent")),
    }


def short(size: float | None) -> str:
    """A number of bytes for reading; ``-`` where it is not known."""
    return "-" if size is None else Size(int(size)).short
