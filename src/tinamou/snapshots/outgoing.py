"""What a machine's QEMU does when the machine leaves for another host: its disks mirrored, its memory sent.

Its guest runs on all the while, but for the switch at the end; whatever fails before that, `run_on` has it go on here.
QEMU is handed connected sockets: behind its walls it can reach nothing by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from tinamou.control import Listener, Session
from tinamou.control.answers import number, record
from tinamou.control.commands import (
    Job,
    cont,
    getfd,
    heard,
    jobs,
    migrate,
    migration,
    set_migration,
    status,
    stop,
    wait_migrated,
)
from tinamou.errors import ControlError
from tinamou.images.progress import Progress
from tinamou.late import dataclass
from tinamou.snapshots.jobs import cancel

__all__ = ["STILL_SECONDS", "Sent", "Volume", "mirror", "run_on", "send"]

_OURS = "move-"
"""How the names of our jobs and nodes begin."""
_LOOK = 0.1
"""Seconds after which is looked again at what events tell too."""
_RISING = ((7, 1), (5, 2), (3, 4), (0, 20))
"""From how many passes over the memory on the guest may stand still for what part of the time that was asked for: one that
writes little is not kept waiting for what one more pass would have carried while it ran. The first part is shorter than what
any guest's first pass leaves: with a quarter the guest was stopped within that pass, its last 20 MB still to go."""
STILL_SECONDS = 60.0
"""A move in which nothing moves for so long is given up."""
_CAPABILITIES = {"pause-before-switchover": True, "x-ignore-shared": False, "events": True}


@dataclass(frozen=True)
class Volume:
    """A disk that goes along: ``node`` is what its device reads, ``size`` in bytes, of which ``used`` are in files.

    ``outside`` is its file where that is not the machine's own: the other host may see the same one.
    """

    name: str
    node: str
    format: str
    size: int
    used: int
    outside: str = ""


@dataclass(frozen=True)
class Sent:
    """How the memory went: ``stopped`` is when the guest was, by QEMU's clock; bytes, seconds, passes over the memory.

    ``dirty`` is bytes a second that the guest wrote at the end of them.
    """

    stopped: float
    setup: float
    memory: int
    rounds: int
    dirty: int
    seconds: float


async def mirror(
    session: Session,
    disks: Sequence[Volume],
    connect: Callable[[], Awaitable[socket.socket]],
    *,
    key: str,
    speed: int,
    progress: Progress,
) -> None:
    """Copy the disks to exports of their names behind ``connect``; from then on every write is done on both, until `send`.

    ``key`` names the `shared_key` by which it is encrypted, empty for none; ``speed`` in bytes a second, 0 for no bound.
    Raises ControlError, OSError.
    """
    with session.listen("BLOCK_JOB_READY", "JOB_STATUS_CHANGE") as events:
        await _begin_mirrors(session, disks, connect, key, speed)
        moved, since = -1, time.monotonic()
        while disks:
            ours = [one for one in await jobs(session) if one.id.startswith(_OURS)]
            _refuse_failed(disks, ours)
            done, whole = sum(one.progress for one in ours), sum(one.total for one in ours)
            progress("copying disks", done / whole if whole else None)
            if all(one.status == "ready" for one in ours):
                return
            moved, since = _moving(done, moved, since, "its disks")
            await heard(events, _LOOK)


async def _begin_mirrors(
    session: Session, disks: Sequence[Volume], connect: Callable[[], Awaitable[socket.socket]], key: str, speed: int
) -> None:
    encrypted = {"tls-creds": key} if key else {}
    for disk in disks:
        name = _OURS + disk.name
        connected = await connect()
        await getfd(session, connected.fileno(), name)
        node = {"driver": "nbd", "node-name": name, "server": {"type": "fd", "str": name}, "export": disk.name, **encrypted}
        await session.execute("blockdev-add", node)
        how = {"job-id": name, "device": disk.node, "target": name, "sync": "full", "copy-mode": "write-blocking"}
        await session.execute("blockdev-mirror", {**how, "speed": speed, "auto-dismiss": False})


def _refuse_failed(disks: Sequence[Volume], ours: Sequence[Job]) -> None:
    failed = [one for one in ours if one.error or one.status == "concluded"]
    if failed or len(ours) < len(disks):
        why = "; ".join(one.error for one in failed) or "the copy ended"
        raise ControlError("a disk cannot be copied to the other host", why=why)


def _moving(now: int, before: int, since: float, what: str) -> tuple[int, float]:
    """What was reached and when; raises ControlError where nothing has moved for long."""
    if now != before:
        return now, time.monotonic()
    if time.monotonic() - since > STILL_SECONDS:
        why = f"nothing of {what} went over the line for {STILL_SECONDS:.0f} s"
        raise ControlError("the other host does not take the machine", why=why)
    return before, since


async def send(
    session: Session,
    line: socket.socket,
    disks: Sequence[Volume],
    *,
    key: str,
    limit: int,
    downtime: int,
    slow: bool,
    still: bool,
    progress: Progress,
) -> Sent:
    """Send the memory and all devices; the guest stands still afterwards, and its disks there are as they are here.

    ``key`` as in `mirror`; ``limit`` in bytes a second, 0 for none; the guest is stopped when the rest will take
    ``downtime`` milliseconds, or a part of that in the first passes (`_RISING`); ``slow`` slows it down where it writes
    faster than that goes over; with ``still`` it stands still from the beginning on. Raises ControlError; `run_on` then.
    """
    await getfd(session, line.fileno(), _OURS + "memory")
    await set_migration(
        session,
        capabilities={**_CAPABILITIES, "auto-converge": slow},
        parameters={"max-bandwidth": limit or 1 << 40, "downtime-limit": _part(downtime, 0), "tls-creds": key},
    )
    began = time.monotonic()
    with session.listen("STOP") as stops, session.listen("MIGRATION") as events:
        if still:
            await stop(session)
        await migrate(session, f"fd:{_OURS}memory")
        await _until_switch(session, disks, events, downtime, progress)
        stopped = await stops.next(STILL_SECONDS)
        await _end_mirrors(session, disks)
        await session.execute("migrate-continue", state="pre-switchover")
        await _until_migrated(session, events)
    told = record(await session.execute("query-migrate"))
    ram = record(told.get("ram", {}))
    dirty = number(ram, "dirty-pages-rate", 0, least=0) * number(ram, "page-size", 4096, least=0)
    rounds = number(ram, "dirty-sync-count", 0, least=0)
    setup = number(told, "setup-time", 0, least=0) / 1000
    seconds = time.monotonic() - began
    return Sent(stopped.at, setup, number(ram, "transferred", 0, least=0), rounds, dirty, seconds)


def _part(downtime: int, rounds: int) -> int:
    return max(1, downtime // next(part for least, part in _RISING if rounds >= least))


async def _until_migrated(session: Session, events: Listener) -> None:
    async with asyncio.timeout(STILL_SECONDS):
        while (now := await migration(session)).status != "completed":
            if now.status in ("failed", "cancelled"):
                raise ControlError(f"the machine's state did not go over: {now.status}", why=now.error)
            await heard(events, _LOOK)


async def _until_switch(
    session: Session, disks: Sequence[Volume], events: Listener, downtime: int, progress: Progress
) -> None:
    moved, since, looked, limit = -1, time.monotonic(), 0.0, _part(downtime, 0)
    while (now := await migration(session)).status != "pre-switchover":
        if now.status in ("completed", "failed", "cancelled", "cancelling"):
            raise ControlError(f"The machine's memory did not go over: {now.status}", why=now.error)
        progress("sending memory", min(now.transferred / now.total, 1.0) if now.total else None)
        moved, since = _moving(now.transferred, moved, since, "its memory")
        if _part(downtime, now.rounds) != limit:
            limit = _part(downtime, now.rounds)
            await set_migration(session, parameters={"downtime-limit": limit})
        if time.monotonic() - looked > 1.0:
            looked = time.monotonic()
            _refuse_failed(disks, [one for one in await jobs(session) if one.id.startswith(_OURS)])
        await heard(events, _LOOK)


async def _end_mirrors(session: Session, disks: Sequence[Volume]) -> None:
    """The guest stands still: what is not there yet is written and flushed, and nothing is written after that.

    The jobs and nodes stay: this QEMU ends, or `run_on` removes them.
    """
    going = {_OURS + disk.name for disk in disks}
    with session.listen("JOB_STATUS_CHANGE") as events:
        for name in going:
            await session.execute("block-job-cancel", device=name)
        async with asyncio.timeout(STILL_SECONDS):
            while going:
                event = await events.next()
                if event.data.get("status") == "concluded":
                    going.discard(str(event.data.get("id")))
    for job in await jobs(session) if disks else ():
        if job.id.startswith(_OURS) and job.error:
            raise ControlError(f"{job.id.removeprefix(_OURS)} is not whole on the other host", why=job.error)


async def run_on(session: Session) -> None:
    """Give up whatever is left of a move, and let the guest run here. Raises ControlError for a QEMU that does not."""
    if (await migration(session)).status not in ("none", "completed", "failed", "cancelled"):
        await session.execute("migrate_cancel")
        with contextlib.suppress(ControlError, TimeoutError):
            await wait_migrated(session, 10.0)
    for job in await jobs(session):
        if job.id.startswith(_OURS):
            await cancel(session, job.id)
    for name in await _nodes(session):
        with contextlib.suppress(ControlError):
            await session.execute("blockdev-del", node_name=name)
    usual = dict.fromkeys((*_CAPABILITIES, "auto-converge"), False)
    await set_migration(session, capabilities=usual, parameters={"tls-creds": ""})
    if not (await status(session)).running:
        await cont(session)


async def _nodes(session: Session) -> list[str]:
    graph = json.dumps(await session.execute("x-debug-query-block-graph"))
    return sorted(set(re.findall(rf'"({_OURS}[a-z0-9]+)"', graph)))
