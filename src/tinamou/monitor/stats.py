"""What machines use: processor, memory, disks, network, at one moment or between two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou.control.commands import status
from tinamou.errors import TinamouError
from tinamou.late import dataclass, replace
from tinamou.monitor import processes
from tinamou.monitor.disks import disks_of
from tinamou.monitor.guest_memory import Visit
from tinamou.monitor.look import Patience, memory_of, visit_to, within
from tinamou.monitor.observation import DiskObservation, GuestMemory, Held
from tinamou.monitor.states import LOOK_SECONDS, UNKNOWN, reason
from tinamou.network.counters import counted
from tinamou.spec import load_spec
from tinamou.state.record import Record
from tinamou.system.rooted import Rooted
from tinamou.units import Size

__all__ = ["Rates", "Reading", "measure", "plain", "rates", "read"]

_NETWORK_SECONDS = 5.0


@dataclass(frozen=True)
class Reading:
    """One machine at one moment; ``network`` are rows of counters by card and who counted.

    ``spent`` is its processor time until it was asked, ``asked`` until it had answered: the questions are work too, and
    are not to be shown as the machine's own. ``missing`` says of what there are no numbers, and why. ``percent`` is of its
    ``vcpus``, None where only one moment is known.
    """

    name: str
    state: str
    accel: str
    vcpus: int
    at: float
    spent: processes.Spent | None
    asked: processes.Spent | None
    memory: GuestMemory | None
    held: Held | None
    disks: tuple[DiskObservation, ...] = ()
    network: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    percent: float | None = None

    def moved(self, what: str) -> int:
        """A counter of all its disks together."""
        return sum(int(getattr(disk, what)) for disk in self.disks)

    def carried(self, what: str) -> int | None:
        """``received`` or ``sent`` of all cards, as the guest counts where it can; None where nobody counts."""
        by_card: dict[str, int] = {}
        for row in self.network:
            if what in row:
                by_card.setdefault(row["nic"], row[what])
        return sum(by_card.values()) if by_card else None


@dataclass(frozen=True)
class Rates:
    """Per second between two readings; None where that is not known."""

    read: float
    written: float
    reads: float
    writes: float
    received: float | None
    sent: float | None


async def measure(record: Record, seconds: float = 0.5) -> Reading:
    """One machine, its processor time over ``seconds``."""
    before = processes.spent(Rooted(), record.pid)
    await asyncio.sleep(seconds)
    reading = await read(record, Patience(every=0, first=5.0))
    return replace(reading, percent=processes.percent(before, reading.spent, reading.vcpus))


async def read(record: Record, patience: Patience) -> Reading:
    """What can be read of a running machine now; its state is ``unknown`` where its QEMU does not say what it is asked."""
    files, visit = Rooted(), visit_to(record)
    spent, held = processes.spent(files, record.pid), processes.held(files, record.pid, share=True)
    found = Reading(record.name, UNKNOWN, record.accel, 1, time.monotonic(), spent, None, None, held)
    try:
        found = replace(found, vcpus=load_spec(record.spec).cpu.present)
        state, disks = await within(LOOK_SECONDS, _devices(record, visit))
        memory, (network, silent) = await asyncio.gather(
            memory_of(record, visit, patience, running=state == "running"), _network(record, state)
        )
    except Exception as error:  # whatever one machine answers, the others are shown
        return replace(found, missing=(f"numbers: {reason(error)}",))
    missing = [f"memory in the guest: {memory.why}"] if memory.why else []
    missing += ["memory on the host: /proc of its QEMU may not be read"] if held is None else []
    missing += [f"network in the guest: {silent}"] if silent else []
    seen = {"state": state, "disks": disks, "memory": memory, "network": tuple(network), "missing": tuple(missing)}
    return replace(found, **seen, at=time.monotonic(), asked=processes.spent(files, record.pid))


async def _devices(record: Record, visit: Visit) -> tuple[str, tuple[DiskObservation, ...]]:
    async with await visit() as session:
        return (await status(session)).state, await disks_of(session, Path(record.directory), stopped=False)


async def _network(record: Record, state: str) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The rows, and why the guest's are not among them."""
    if not load_spec(record.spec).net:
        return [], ""
    why = "it stands still" if state != "running" else "" if record.agent else f"no guest agent is known in {record.image}"
    try:
        rows = await asyncio.wait_for(counted(record, guest=not why), _NETWORK_SECONDS)
    except TimeoutError:
        why = "its agent does not answer"
        rows = await counted(record, guest=False)
    except TinamouError as error:
        return [], error.what
    if not why and not any(row["seen"] == "guest" for row in rows):
        why = "its agent does not answer, or shows no card"
    return rows, why


def rates(before: Reading, after: Reading) -> Rates:
    """What moved between two readings; a counter that began anew counts from 0."""
    seconds = max(after.at - before.at, 1e-3)

    def rate(old: int, new: int) -> float:
        return (new - old if new >= old else new) / seconds

    def carried(what: str) -> float | None:
        old, new = before.carried(what), after.carried(what)
        return None if old is None or new is None else rate(old, new)

    return Rates(
        rate(before.moved("read"), after.moved("read")),
        rate(before.moved("written"), after.moved("written")),
        rate(before.moved("reads"), after.moved("reads")),
        rate(before.moved("writes"), after.moved("writes")),
        carried("received"),
        carried("sent"),
    )


def plain(reading: Reading) -> dict[str, Any]:
    """A reading as data for JSON: sizes in bytes, times in seconds."""
    memory, held = reading.memory, reading.held
    return {
        "name": reading.name,
        "state": reading.state,
        "accel": reading.accel,
        "cpu": {"vcpus": reading.vcpus, "percent": _rounded(reading.percent)},
        "memory": {
            "size": memory and int(memory.size),
            "balloon": memory and int(memory.holds),
            "guest": _guest(memory),
            "host": held and {"rss": int(held.rss), "pss": _whole(held.pss), "swap": int(held.swap)},
        },
        "disks": [_disk(one) for one in reading.disks],
        "network": [dict(row) for row in reading.network],
        "missing": list(reading.missing),
    }


def _guest(memory: GuestMemory | None) -> dict[str, Any] | None:
    if memory is None or memory.available is None:
        return None
    names = ("used", "available", "free", "caches", "swapped_in", "swapped_out")
    return {**{name: _whole(getattr(memory, name)) for name in names}, "age": _rounded(memory.age)}


def _disk(one: DiskObservation) -> dict[str, Any]:
    return {
        "name": one.name,
        "read_bytes": one.read,
        "written_bytes": one.written,
        "reads": one.reads,
        "writes": one.writes,
        "flushes": one.flushes,
        "files": list(one.files),
        "allocated": int(one.allocated),
        "may_grow": int(one.may_grow),
        "free": int(one.place.free) if one.place else None,
    }


def _whole(size: Size | None) -> int | None:
    return None if size is None else int(size)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
