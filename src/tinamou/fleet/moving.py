"""A running machine moved to another host: offered, tried, copied while it runs, switched over, let go of.

The two sides are told apart by their records alone (`tinamou.state.moves`): whatever ends this, and whenever, there is one
machine, and the record here names its host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tinamou.blueprint import Plan
from tinamou.blueprint.stored import plain
from tinamou.errors import StateError, TinamouError
from tinamou.facts import files
from tinamou.fleet import hosts, remote, settling
from tinamou.fleet.frames import Frames
from tinamou.fleet.hosts import Host
from tinamou.guest.carry.port import kept_out
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import autostart, before_upgrade, leaving, life, schedules
from tinamou.machine.connected import Connected
from tinamou.machine.portable import saved_plan
from tinamou.machine.reconcile import end_machine
from tinamou.machine.turns import turn
from tinamou.machine.upgrading import version_of
from tinamou.snapshots.outgoing import Sent, Volume, mirror, run_on, send
from tinamou.state import machines, moves
from tinamou.state.record import Record, newest
from tinamou.system.loop_thread import in_thread
from tinamou.system.sockets import connect_unix

__all__ = ["Evacuated", "How", "Moved", "evacuate", "move"]

_PREPARING_SECONDS = 600.0
"""How long the other side may take until its QEMU waits: it may have to fill huge pages."""
_GO_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class How:
    """``limit`` in bytes a second for all that goes over, 0 for none; ``downtime`` in milliseconds, which the end of it may
    take; ``slow`` slows the guest down where it writes faster than the line carries; ``cut`` moves it also where
    connections of its guest are held by another process here (passt), which end."""

    limit: int = 0
    downtime: int = 300
    slow: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Moved:
    """A machine and where it is now. Seconds: it stood still for ``downtime``, from QEMU's stop until its running there was
    heard here; ``setup`` until its QEMU waited there, ``mirror`` for its disks, ``total`` for all.

    ``memory`` and ``disks`` are bytes that went over, ``rounds`` passes over the memory, ``dirty`` bytes a second the guest
    wrote at the end, ``throughput`` bytes of memory a second.
    """

    name: str
    host: str
    downtime: float
    setup: float
    mirror: float
    total: float
    memory: int
    disks: int
    rounds: int
    dirty: int
    throughput: float
    notes: tuple[str, ...] = ()


async def move(name: str, host: str, how: How | None = None, *, progress: Progress = silent) -> Moved:
    """Move a running machine to another host, which it goes on on.

    One that has left already, and whose host was not heard, is made known there. Raises TinamouError; it runs on here then,
    unless the error says that it has left.
    """
    there, record = hosts.find(host), machines.find(name)
    if moves.phase(record) == moves.LEFT:
        return await _tell(record, there)
    if moves.doubtful(record):
        async with turn(record, "move"):
            moves.refuse_elsewhere(await settling.give_up(record, hosts.find(str(record.move["host"]))), "moved")
    async with (
        turn(life.running(name), "move") as record,
        Connected(record, owner=not record.owned) as machine,
        kept_out(record.directory, await machine.session()),
    ):
        return await _Move(machine, there, how or How(), progress).done()


@dataclass(frozen=True)
class Evacuated:
    """What has gone to another host, and why the others stay, by name."""

    moved: tuple[Moved, ...]
    stay: Mapping[str, str]


async def evacuate(host: str, how: How | None = None, *, progress: Progress = silent) -> Evacuated:
    """Move every machine that runs here to another host, one after another; one that cannot go stays as it is.

    Raises StateError for a host that is not known.
    """
    hosts.find(host)
    moved, stay = [], {}
    for record in machines.machines():
        if record.running:
            try:
                moved.append(await move(record.name, host, how, progress=progress))
            except TinamouError as error:
                stay[record.name] = "; ".join(filter(None, [error.what, *map(str, error.problems), error.why]))
    return Evacuated(tuple(moved), stay)


async def _tell(record: Record, host: Host) -> Moved:
    began = time.monotonic()
    if record.move.get("host") != host.name or record.move.get("told"):
        moves.refuse_elsewhere(record, "moved")
    async with turn(record, "move") as now:
        await remote.call_json(host, ["receive", "--go", moves.token_of(now)])
        notes = await in_thread(_forget, now)
    took = time.monotonic() - began
    note = f"{record.name} had left before, and {host.name} had not been heard to have it"
    return Moved(record.name, host.name, 0.0, 0.0, 0.0, took, 0, 0, 0, 0, 0.0, (note, *notes))


class _Move:
    """One move, and how far it is."""

    def __init__(self, machine: Connected, host: Host, how: How, progress: Progress) -> None:
        self._machine = machine
        self._host = host
        self._how = how
        self._progress = progress
        self._token = secrets.token_hex(8)
        self._began = time.monotonic()
        self._notes: list[str] = []

    async def done(self) -> Moved:
        """Do it. Raises TinamouError; the machine runs on here then, or has left."""
        session = await self._machine.session()
        record = self._machine.record
        leaving.refuse_unmovable(record, self._machine.plan, cut=self._how.cut)
        plan = await saved_plan(record, session)
        disks = await leaving.volumes(record)
        sample = await self._sample(plan, version_of(session))
        try:
            record = await in_thread(moves.begin_leaving, record, self._host.name, self._token)
            async with remote.stream(self._host, [*self._host.command, "receive"]) as pipe:
                frames = Frames(pipe.reader, pipe.writer)
                async with frames.beating():
                    return await self._carried(frames, plan, disks, sample)
        except BaseException:
            await asyncio.shield(self._put_right())
            raise

    async def _put_right(self) -> None:
        """The machine goes on here where it has not left; where it has, it ends here."""
        record = newest(self._machine.record)
        if moves.phase(record) == moves.LEAVING and moves.token_of(record) == self._token:
            if record.running:
                await run_on(await self._machine.session())
            record = await in_thread(moves.stay, record, self._token)
            if moves.doubtful(record):
                with contextlib.suppress(TinamouError):  # not heard: asked again before it is started or moved
                    await settling.give_up(record, self._host)
        elif moves.phase(record) == moves.LEFT:
            await self._machine.close()
            await in_thread(end_machine, record)

    async def _sample(self, plan: Plan, runs: str) -> bytes:
        self._progress("trying its devices", None)
        try:
            async with before_upgrade.sample(plan, runs) as state:
                return await in_thread(state.read_bytes)
        except before_upgrade.NotTriedError as error:
            self._notes.append(f"its devices were not tried there before it went: {error.what}")
            return b""

    async def _carried(self, frames: Frames, plan: Plan, disks: tuple[Volume, ...], sample: bytes) -> Moved:
        record, session = self._machine.record, await self._machine.session()
        self._progress(f"asking {self._host.name}", None)
        whole = await in_thread(leaving.described, record, plan, disks)
        offered: dict[str, Any] = {
            "name": record.name,
            "host": os.uname().nodename,
            "token": self._token,
            "created": record.created,
        }
        table = {disk.name: (disk.format, disk.size, disk.used) for disk in disks}
        with leaving.marked(disks, self._token) as outside:
            offered |= {"generation": record.generation, "plan": plain(plan), "disks": table, "outside": outside}
            await frames.say("offer", whole, **offered)
            await frames.say("sample", sample)
            opened, _ = await frames.hear("open", _PREPARING_SECONDS)
        self._notes += [str(note) for note in opened["notes"]]
        disks = tuple(disk for disk in disks if disk.name not in opened["here"])
        setup = time.monotonic() - self._began
        hearing = asyncio.ensure_future(frames.hear("ready"))
        try:
            async with _carrying(record, self._host, opened) as (to_disks, to_memory):
                work = mirror(session, disks, lambda: _connected(to_disks), self._how.limit, self._progress)
                await frames.meanwhile(work, hearing)
                mirrored = time.monotonic() - self._began - setup
                await in_thread(moves.sending, record, self._token)
                sent = await frames.meanwhile(self._sent(to_memory, disks), hearing)
                await hearing
                went = await _to_its_end(self._gone(frames))
        finally:
            hearing.cancel()
        total = time.monotonic() - self._began
        size = sum(disk.used for disk in disks)
        speed = sent.memory / sent.seconds if sent.seconds else 0.0
        return Moved(
            record.name,
            self._host.name,
            went - sent.stopped,
            setup,
            mirrored,
            total,
            sent.memory,
            size,
            sent.rounds,
            sent.dirty,
            speed,
            tuple(self._notes),
        )

    async def _sent(self, path: Path, disks: tuple[Volume, ...]) -> Sent:
        session, how = await self._machine.session(), self._how
        with _connected(path) as line:
            limits: dict[str, Any] = {"limit": how.limit, "downtime": how.downtime, "slow": how.slow}
            return await send(session, line, disks, **limits, progress=self._progress)

    async def _gone(self, frames: Frames) -> float:
        """The decision, and the other side's word that it runs there; when that was heard, in seconds since 1970."""
        record = await in_thread(moves.leave, self._machine.record, self._token)
        try:
            await frames.say("go")
            data, _ = await frames.hear("runs", _GO_SECONDS)
        except TinamouError as error:
            what = f"{record.name} has left, and {self._host.name} was not heard to have it"
            fix = f"once {self._host.name} can be reached: tinamou move {record.name} {self._host.name}"
            raise StateError(what, why=f"{error.what}: {error.why}", fix=fix) from error
        went = time.time()
        if not data["running"]:
            self._notes.append(f"its QEMU ended on {self._host.name} at the last moment: it is off there")
        await self._machine.close()
        self._notes += await in_thread(_forget, record)
        with contextlib.suppress(TinamouError):
            if note := str((await frames.hear("settled", _GO_SECONDS))[0]["note"]):
                self._notes.append(note)
        return went


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What is decided is done, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _connected(path: Path) -> socket.socket:
    """A connection through the line, blocking as QEMU wants to set that itself."""
    connected = connect_unix(str(path))
    connected.setblocking(True)
    return connected


@contextlib.asynccontextmanager
async def _carrying(record: Record, host: Host, opened: dict[str, Any]) -> AsyncIterator[tuple[Path, Path]]:
    """Sockets of this host that lead to the two there, for the block."""
    folder = record.file(files.MOVING)
    shutil.rmtree(folder, ignore_errors=True)  # of a move that was killed
    folder.mkdir(mode=0o700)
    here = folder / "disks", folder / "memory"
    try:
        async with remote.forward(host, {here[0]: str(opened["disks"]), here[1]: str(opened["memory"])}):
            yield here
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget(record: Record) -> list[str]:
    """The other host has the machine: what is left of it here is that it went there; what else was arranged for it here."""
    moves.confirmed(record, moves.token_of(record))
    host = newest(record).move["host"]
    end_machine(record)
    notes = []
    if schedules.remove_schedules(record.name):
        notes.append(f"its schedules were this host's; there: tinamou -H {host} snapshot schedule {record.name}")
    if record.file(files.AUTOSTART).exists():
        notes.append(f"it started with this host; there: tinamou -H {host} autostart {record.name}")
        autostart.turn_off(record)
    kept = {files.RECORD, files.LOCK, files.OPERATION, files.IMAGE}
    for path in record.path.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return notes
