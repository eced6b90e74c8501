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
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.blueprint.stored import plain
from tinamou.control import Session
from tinamou.errors import ControlError, HostError, StateError, TinamouError
from tinamou.facts import files
from tinamou.facts.qemu import loses_writes
from tinamou.fleet import hosts, lines, remote, settling
from tinamou.fleet.calling import Call, called
from tinamou.fleet.frames import Frames
from tinamou.fleet.hosts import Host
from tinamou.fleet.lines import Carrier, Line
from tinamou.guest.carry.port import kept_out
from tinamou.images import store
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import autostart, before_upgrade, leaving, life, schedules
from tinamou.machine.connected import Connected
from tinamou.machine.portable import saved_plan
from tinamou.machine.reconcile import end_machine
from tinamou.machine.turns import turn
from tinamou.machine.upgrading import version_of
from tinamou.snapshots.outgoing import Sent, Volume, mirror, run_on, send
from tinamou.snapshots.shared_key import KEY, shared_key
from tinamou.state import machines, moves
from tinamou.state.record import Record, newest
from tinamou.system.loop_thread import in_thread

__all__ = ["How", "Moved", "move"]

_PREPARING_SECONDS = 600.0
"""How long the other side may take until its QEMU waits: it may have to fill huge pages."""
_GO_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class How:
    """``limit`` in bytes a second for all that goes over, 0 for none; ``downtime`` in milliseconds, which the end of it may
    take; ``slow`` slows the guest down where it writes faster than the line carries; ``cut`` moves it also where
    connections of its guest are held by another process here (passt), which end; ``line`` is one of `LINES`."""

    limit: int = 0
    downtime: int = 300
    slow: bool = False
    cut: bool = False
    line: str = "auto"


@dataclass(frozen=True)
class Moved:
    """A machine and where it is now. Seconds: it stood still for ``downtime``, from QEMU's stop until its running there was
    heard here; ``setup`` until its QEMU waited there, ``mirror`` for its disks, ``total`` for all.

    ``memory`` and ``disks`` are bytes that went over, ``rounds`` passes over the memory, ``dirty`` bytes a second the guest
    wrote at the end, ``throughput`` bytes of memory a second.

    ``line`` is what carried them, for the reason ``chosen``: ``tls``, connections of QEMU's own; ``ssh``; ``packed``, ssh
    that compresses. ``stages`` says at which second of it each step was done.
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
    line: str = ""
    chosen: str = ""
    stages: Mapping[str, float] = late.field(default_factory=dict)
    notes: tuple[str, ...] = ()


async def move(
    name: str, host: str, how: How | None = None, *, progress: Progress = silent, call: Call | None = None
) -> Moved:
    """Move a running machine to another host, which it goes on on; ``call`` is one that host has been given already.

    One that has left already, and whose host was not heard, is made known there. Raises TinamouError; it runs on here then,
    unless the error says that it has left.
    """
    there, record = hosts.find(host), machines.find(name)
    if moves.phase(record) == moves.LEFT:
        return await _tell(record, there)
    if moves.doubtful(record):
        async with turn(record, "move"):
            moves.refuse_elsewhere(await settling.give_up(record, hosts.find(str(record.move["host"]))), "moved")
    running = life.running(name)
    async with (
        contextlib.nullcontext(call) if call else called(there) as line,
        turn(running, "move") as record,
        Connected(record, owner=not record.owned) as machine,
        kept_out(record.directory, await machine.session()),
    ):
        return await _Move(machine, there, how or How(), progress).done(line)


async def _tell(record: Record, host: Host) -> Moved:
    began = time.monotonic()
    if record.move.get("host") != host.name or record.move.get("told"):
        moves.refuse_elsewhere(record, "moved")
    async with turn(record, "move") as now:
        await remote.call_json(host, ["receive", "--go", moves.token_of(now)])
        notes = await in_thread(_forget, now)
    took = time.monotonic() - began
    note = f"{record.name} had left before, and {host.name} had not been heard to have it"
    return Moved(record.name, host.name, 0.0, 0.0, 0.0, took, 0, 0, 0, 0, 0.0, notes=(note, *notes))


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
        self._stages: dict[str, float] = {}
        self._line: tuple[Line, str] = "ssh", ""
        self._sampling: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def _done(self, stage: str) -> float:
        """Note that a stage is over; the seconds since it began."""
        now = time.monotonic() - self._began
        self._stages[stage] = round(now, 3)
        return now

    async def done(self, call: Call) -> Moved:
        """Do it, by that call. Raises TinamouError; the machine runs on here then, or has left."""
        leaving.refuse_unmovable(self._machine.record, self._machine.plan, cut=self._how.cut)
        moved: Moved | None = None
        try:
            async with call.taken() as frames:
                moved = await self._carried(frames)
        except HostError:
            if moved is None:  # else it has gone, and the line was lost while it was hung up
                await asyncio.shield(self._put_right())
                raise
        except BaseException:
            await asyncio.shield(self._put_right())
            raise
        assert moved is not None
        return moved

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

    async def _carried(self, frames: Frames) -> Moved:
        session = await self._machine.session()
        async with contextlib.AsyncExitStack() as stack:
            disks, opened = await self._opened(frames, session, stack)
            setup = self._done("opened")
            carrier = await stack.enter_async_context(self._carrier(opened))
            disks = tuple(disk for disk in disks if disk.name not in opened["here"])
            hearing = asyncio.ensure_future(frames.hear("tried"))
            trying = asyncio.ensure_future(self._tried(frames))
            try:
                await frames.meanwhile(self._mirrored(session, disks, carrier), hearing)
                mirrored = self._done("mirrored") - setup
                await trying
                await hearing
                self._done("tried")
                await in_thread(moves.sending, self._machine.record, self._token)
                hearing = asyncio.ensure_future(frames.hear("ready"))
                sent = await frames.meanwhile(self._sent(session, disks, carrier), hearing)
                self._done("sent")
                await hearing
                self._done("ready")
                went = await _to_its_end(self._gone(frames))
            finally:
                trying.cancel()
                hearing.cancel()
                await asyncio.wait([trying, hearing])
        return self._told(went, setup, mirrored, disks, sent)

    async def _opened(
        self, frames: Frames, session: Session, stack: contextlib.AsyncExitStack
    ) -> tuple[tuple[Volume, ...], dict[str, Any]]:
        """Offer it to the other side: its plan, its disks, and where they go once its QEMU waits there."""
        record = self._machine.record
        self._progress(f"asking {self._host.name}", None)
        boots, (address, peer) = await asyncio.gather(in_thread(_sums, record), in_thread(_toward, self._host, self._how))
        await frames.say("files", files=list(boots.values()), address=address, peer=peer)
        plan, disks = await saved_plan(record, session), await leaving.volumes(record)
        self._done("planned")
        self._sampling = asyncio.ensure_future(self._sampled(plan, version_of(session)))
        stack.push_async_callback(_ended, self._sampling)
        has, _ = await frames.hear("has")
        self._done("reached")
        choosing = asyncio.ensure_future(self._chosen(address, has))
        stack.push_async_callback(_ended, choosing)
        record = await in_thread(moves.begin_leaving, record, self._host.name, self._token)
        there = {field: sum for field, (_, sum) in boots.items() if sum in has["sums"]}
        whole = await in_thread(leaving.described, record, plan, disks, there)
        self._line = await choosing
        key = await self._key(session, stack)
        offered: dict[str, Any] = {"name": record.name, "host": os.uname().nodename, "token": self._token}
        offered |= {
            "created": record.created,
            "generation": record.generation,
            "plan": plain(plan),
            "boots": there,
            "key": key,
        }
        table = {disk.name: (disk.format, disk.size, disk.used) for disk in disks}
        with leaving.marked(disks, self._token) as outside:
            await frames.say("offer", whole, **offered, disks=table, outside=outside)
            self._done("offered")
            opened, _ = await frames.hear("open", _PREPARING_SECONDS)
        self._notes += [str(note) for note in opened["notes"]]
        return disks, {**opened, "address": address, "ports": has["ports"]}

    async def _chosen(self, address: str, has: Mapping[str, Any]) -> tuple[Line, str]:
        link = lines.Link(0.0, str(has["why"]) or "it was not asked for")
        if has["ports"]:
            link = await lines.measured(address, int(has["ports"][1]))
        return lines.chosen(self._how.line, link)

    async def _key(self, session: Session, stack: contextlib.AsyncExitStack) -> str:
        """The key that both QEMUs are given; empty where this one takes none, or needs none."""
        if self._line[0] != "tls":
            return ""
        key, record = secrets.token_hex(32), self._machine.record
        try:
            await stack.enter_async_context(shared_key(session, record.file(files.MOVING), record.uid, key, "client"))
        except ControlError as error:
            self._line = "ssh", f"its QEMU takes no key: {error.why or error.what}"
            return ""
        return key

    def _carrier(self, opened: Mapping[str, Any]) -> contextlib.AbstractAsyncContextManager[Carrier]:
        """What carries its bytes: as it was chosen, or by ssh where the QEMU there takes no key."""
        if self._line[0] == "tls" and not opened["paths"]:
            return lines.direct(str(opened["address"]), *map(int, opened["ports"]))
        if self._line[0] == "tls":
            self._line = "ssh", f"the QEMU there takes no key: {opened['why']}"
        disks, memory = map(str, opened["paths"])
        folder = self._machine.record.file(files.MOVING)
        return lines.by_ssh(self._host, folder, disks, memory, packed=self._line[0] == "packed")

    @property
    def _named(self) -> str:
        return KEY if self._line[0] == "tls" else ""

    async def _sampled(self, plan: Plan, runs: str) -> bytes:
        """What a stand-in of it saved, for the other side to try; where that cannot be nothing, and it is noted."""
        try:
            async with before_upgrade.sample(plan, runs) as state:
                return await in_thread(state.read_bytes)
        except before_upgrade.NotTriedError as error:
            self._notes.append(f"its devices were not tried there before it went: {error.what}")
            return b""

    async def _tried(self, frames: Frames) -> None:
        await frames.say("sample", await self._sampling)

    async def _mirrored(self, session: Session, disks: tuple[Volume, ...], carrier: Carrier) -> None:
        more: dict[str, Any] = {"key": self._named, "speed": self._how.limit, "progress": self._progress}
        await mirror(session, disks, carrier.disks, **more)

    async def _sent(self, session: Session, disks: tuple[Volume, ...], carrier: Carrier) -> Sent:
        how, line = self._how, await carrier.memory()
        if why := loses_writes(session.version, self._machine.plan.accel):
            self._notes.append(f"its guest stood still while its memory went: {why}")
        more: dict[str, Any] = {"limit": how.limit, "downtime": how.downtime, "slow": how.slow, "still": bool(why)}
        return await send(session, line, disks, key=self._named, **more, progress=self._progress)

    def _told(self, went: float, setup: float, mirrored: float, disks: tuple[Volume, ...], sent: Sent) -> Moved:
        if self._how.line == "auto" and self._line[0] == "ssh":
            self._notes.append(f"it went through ssh, which is slower: {self._line[1]}")
        return Moved(
            self._machine.record.name,
            self._host.name,
            went - sent.stopped,
            setup,
            mirrored,
            self._done("ended"),
            sent.memory,
            sum(disk.used for disk in disks),
            sent.rounds,
            sent.dirty,
            sent.memory / sent.seconds if sent.seconds else 0.0,
            *self._line,
            self._stages,
            tuple(self._notes),
        )

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
        self._done("runs")
        if not data["running"]:
            self._notes.append(f"its QEMU ended on {self._host.name} at the last moment: it is off there")
        await self._machine.close()
        notes, settled = await asyncio.gather(in_thread(_forget, record), _settled(frames))
        self._notes += [*notes, *settled]
        return went


async def _settled(frames: Frames) -> list[str]:
    """What is to be said of what was done there last; it is not worth an error."""
    with contextlib.suppress(TinamouError):
        return list(filter(None, [str((await frames.hear("settled", _GO_SECONDS))[0]["note"])]))
    return []


async def _ended(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What is decided is done, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _sums(record: Record) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file it boots from without a boot loader."""
    return {field: (path.stat().st_size, store.digest_of(path)) for field, path in leaving.boots(record).items()}


def _toward(host: Host, how: How) -> tuple[str, str]:
    """`lines.toward`; empty where no connection of its own is asked for, or the name leads nowhere."""
    if how.line in ("auto", "tls"):
        with contextlib.suppress(OSError):
            return lines.toward(host)
    return "", ""


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
