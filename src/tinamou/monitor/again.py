"""Looks at a machine that was well a moment ago: one question to its QEMU, and what needs no question."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence

from tinamou.control import Session
from tinamou.doctor.finding import Finding
from tinamou.errors import ControlError
from tinamou.facts import files
from tinamou.late import dataclass, replace
from tinamou.monitor.disks import place_of
from tinamou.monitor.examine import wrong
from tinamou.monitor.guest_memory import ask_again
from tinamou.monitor.look import printed, within
from tinamou.monitor.observation import Observation, Place
from tinamou.monitor.states import LOOK_SECONDS
from tinamou.state.record import Record

__all__ = ["Sight", "grown", "look_again", "rooms"]

_FULL = 60.0
"""Seconds after which a machine is looked at in full again: its agent is greeted, its chains and counters are read."""


@dataclass(frozen=True)
class Sight:
    """A machine as it was seen last: when that was, and when in full; how much its QEMU and its console had told then."""

    record: Record
    seen: Observation
    at: float
    full: float
    told: int
    length: int
    findings: Sequence[Finding] = ()


def grown(record: Record) -> int:
    """How long its console's log is; -1 where there is none."""
    try:
        return os.stat(record.file(files.SERIAL_LOG)).st_size  # noqa: PTH116
    except OSError:
        return -1


async def look_again(
    before: Sight, record: Record, session: Session | None, told: int, places: Mapping[str, Place | None], every: int
) -> Sight | None:
    """What is seen of it now; None where only a look in full can say that.

    That is so where anything is wrong or was heard, where nobody listens, and where its guest is not known to be well.
    ``places`` are the file systems by a folder on them; QEMU asks the guest for its memory every ``every`` seconds.
    """
    seen, now = before.seen, time.monotonic()
    heard = session is None or before.told != told or before.record is not record
    if session is None or heard or now - before.full >= _FULL or any(map(wrong, before.findings)):
        return None
    if seen.state != "running" or seen.answers is False or seen.memory is None or seen.memory.available is None:
        return None
    try:
        memory = await within(LOOK_SECONDS, ask_again(session, seen.memory, every))
    except ControlError:
        return None
    if memory is None:
        return None
    length = grown(record)
    console = seen.console if length == before.length else printed(record.file(files.SERIAL_LOG), record.log_from)
    disks = tuple(replace(disk, place=places.get(disk.place.path)) if disk.place else disk for disk in seen.disks)
    fresh = replace(seen, memory=memory, uptime=seen.uptime + now - before.at, disks=disks, console=console)
    return replace(before, seen=fresh, at=now, length=length)


def rooms(sights: Iterable[Sight]) -> dict[str, Place | None]:
    """The file systems around these machines' disks as they are now, by a folder on them."""
    folders = {disk.place.path for sight in sights for disk in sight.seen.disks if disk.place}
    return {folder: place_of(f"{folder}/") for folder in folders}
