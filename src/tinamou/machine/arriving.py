"""A machine that comes from another host: made here and tried before anything moves, filled, and let run once it is ours."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint import Flag, Plan, Why
from tinamou.control import Event, Session, connect_qmp
from tinamou.control.commands import cont, getfd, heard, migrate_incoming, migration, set_migration, status
from tinamou.errors import ControlError, StateError, TinamouError, if_full
from tinamou.guest.clock import set_clock
from tinamou.images import empty
from tinamou.images.progress import silent
from tinamou.late import dataclass
from tinamou.launch.process import died
from tinamou.launch.process import start as launch
from tinamou.machine.booting import settle
from tinamou.machine.ends import Direct, Ends, accepted, ends
from tinamou.machine.importing import described, entered, extracted, manifest_of
from tinamou.machine.reconcile import end_machine
from tinamou.machine.schedules import replicate
from tinamou.machine.starting import prepared, run_facts
from tinamou.snapshots.graph import attached
from tinamou.snapshots.hardware import fitted
from tinamou.snapshots.packed import Reader
from tinamou.spec import load_spec
from tinamou.state import machines, moves
from tinamou.state.folder import image_of, write_plan
from tinamou.state.record import Record, change, create, newest, read
from tinamou.system.durable import sync_file, sync_folder
from tinamou.system.loop_thread import in_thread
from tinamou.units import Size

__all__ = ["Arrival", "Offer", "arriving", "discard", "drop", "finish", "let_run", "of_token", "settle_in", "tried"]

_RESERVE = 256 << 20
_NBD, _MEMORY = "nbd", "memory"
_LOOK = 0.25
"""Seconds after which is looked again where nothing was told."""
_EVENT_SECONDS = 60.0


@dataclass(frozen=True)
class Offer:
    """What the source says of a machine: ``plan`` is the one it runs by, ``disks`` their format, size and used bytes.

    ``host`` is what the source is called, ``whole`` its `small` files, ``boots`` what it boots from of which the same is
    here already, by its name there. ``here`` are the disks whose files are seen from here as well: nothing of them is
    copied. ``direct`` are sockets that listen to the source; without them what is sent comes through ssh.
    """

    name: str
    host: str
    token: str
    generation: int
    created: float
    plan: Plan
    disks: Mapping[str, tuple[str, int, int]]
    whole: bytes
    boots: Mapping[str, Path] = late.field(default_factory=dict)
    here: frozenset[str] = frozenset()
    direct: Direct | None = None

    @property
    def copied(self) -> dict[str, tuple[str, int, int]]:
        """The disks of which files are made here."""
        return {name: disk for name, disk in self.disks.items() if name not in self.here}


@dataclass(frozen=True)
class Arrival:
    """A machine whose QEMU waits here: its record, plan and monitor, and where its disks and memory go."""

    record: Record
    plan: Plan
    session: Session
    ends: Ends
    notes: tuple[str, ...] = ()


@contextlib.asynccontextmanager
async def arriving(offer: Offer) -> AsyncIterator[Arrival]:
    """Make the machine and start its QEMU, which waits; gone again when the block raises before it is ready.

    Raises TinamouError with all that keeps it from being here.
    """
    await in_thread(_refuse_known, offer)
    record, notes = await _made(offer)
    try:
        plan = await in_thread(_planned, offer, record)
        await in_thread(write_plan, record, plan)
        async with _waiting(record, plan, offer) as arrival:
            yield late.replace(arrival, notes=tuple(notes))
    except BaseException:
        await asyncio.shield(in_thread(discard, record))
        raise


def discard(record: Record) -> None:
    """Remove a machine that did not arrive. One that is ready stays: whose it is its source decides."""
    if (now := read(record.path)) is not None and moves.phase(now) == moves.ARRIVING:
        end_machine(late.replace(now, ephemeral=True))


def drop(created: float, generation: int, token: str) -> str:
    """The source, of that generation, stays: throw away what came of that move. Whose the machine is beyond that.

    ``""`` where nothing here says that it is another's than the source's; else this host's name, or the one it went on to.
    """
    for record in machines.machines():
        if record.created != created or record.generation <= generation:
            continue
        where = moves.phase(record)
        if where in (moves.READY, moves.ARRIVING) and moves.token_of(record) == token:
            discard(moves.dropped(record, token) if where == moves.READY else record)
            return ""
        if where not in (moves.READY, moves.ARRIVING):
            return str(record.move["host"]) if where == moves.LEFT else os.uname().nodename
    return ""


def of_token(token: str) -> Record:
    """The machine that came, or comes, by the move of that name. Raises StateError."""
    for record in machines.machines():
        if token and moves.token_of(record) == token and moves.phase(record) not in (moves.LEAVING, moves.LEFT):
            return record
    raise StateError("no machine has come by this move", why=f"none here knows of {token}", fix="tinamou ls")


def _refuse_known(offer: Offer) -> None:
    """What is here of that name may be what this very machine left here, or what came of a move that was given up."""
    load_spec({"name": offer.name}, source="the machine that is offered")
    known = read(machines.machines_dir() / offer.name)
    if known is None:
        return
    same = known.created == offer.created
    if same and moves.phase(known) == moves.LEFT and known.generation < offer.generation:
        machines.remove(known.path)
    elif same and moves.phase(known) == moves.READY and not moves.attended(known):
        end_machine(late.replace(known, ephemeral=True))  # its source, which asks, is the owner: it has not left
    else:
        raise StateError(f"there is a machine {offer.name} here already", fix="rename one of them, or remove this one")


async def _made(offer: Offer) -> tuple[Record, list[str]]:
    pieces = Reader(io.BytesIO(offer.whole), "what came").pieces()
    manifest = await in_thread(manifest_of, pieces)
    _refuse_room(offer)
    with machines.making(offer.name) as directory:
        spec, notes = described(manifest, offer.name, trust=True, here=offer.here)
        await in_thread(_booted_from, offer.boots, directory)
        lacking = [one for one in manifest["boots"] if one not in offer.boots]
        await in_thread(extracted, pieces, directory, {**manifest, "boots": lacking, "disks": {}}, silent)
        for disk, (kind, size, _) in offer.copied.items():
            await empty.create(directory / f"{disk}.{kind}", Size(size), kind)
        record, more = await in_thread(entered, manifest, spec, directory)
        if record.base:
            raise StateError(f"{record.base} is the same machine, and here already", fix="remove it, or make it another one")
        for disk, (kind, _, _) in offer.copied.items() if record.uid is not None else ():
            os.chown(directory / f"{disk}.{kind}", record.uid or 0, record.uid or 0)
        move = moves.arriving(offer.host, offer.token)
        mine: dict[str, Any] = {"owner_pid": move["pid"], "owner_started": move["started"], "move": move}
        mine |= {"generation": offer.generation + 1, "created": offer.created}
        return create(late.replace(record, **mine)), [*notes, *more]


def _booted_from(files: Mapping[str, Path], directory: Path) -> None:
    """Files of images here, which never change, as the machine's own: the same ones where that can be."""
    for name, path in files.items():
        target = directory / name
        try:
            target.hardlink_to(path)
        except OSError:  # another file system, or a file this user may not link to
            shutil.copyfile(path, target)
            target.chmod(0o644)


def _refuse_room(offer: Offer) -> None:
    room = os.statvfs(machines.machines_dir())
    free, used = room.f_bavail * room.f_frsize - _RESERVE, sum(used for _, _, used in offer.copied.values())
    if used > free:
        why = f"they use {used >> 20} MiB, {max(free, 0) >> 20} are free"
        raise StateError(f"there is no room for the disks of {offer.name}", why=why, fix=if_full("No space left"))


def _planned(offer: Offer, record: Record) -> Plan:
    """The plan by which it can be here; all is done that it needs of this host. Raises TinamouError."""

    def as_it_is(plan: Plan) -> Plan:
        plan, found = fitted(plan, offer.plan)
        if found:
            raise StateError(f"{offer.name} would not be the machine it is", why="; ".join(found))
        return plan

    return prepared(load_spec(record.spec), record, image_of(record), offer.plan.machine_type, as_it_is)


async def tried(arrival: Arrival, sample: bytes) -> None:
    """Load the state of the source's stand-in into one of what waits here. Raises StateError with what QEMU says."""
    from tinamou.machine.before_upgrade import take  # while the disks come: nothing waits for it

    state = arrival.record.file("sample")
    state.write_bytes(sample)
    try:
        await take(arrival.plan, state)
    except TinamouError as error:
        what = f"the QEMU here does not take what the devices of {arrival.record.name} hold"
        said = "; ".join(filter(None, [error.what, *map(str, error.problems), error.why]))
        raise StateError(what, why=said, fix="move it to a host with a newer QEMU") from error
    finally:
        state.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _waiting(record: Record, plan: Plan, offer: Offer) -> AsyncIterator[Arrival]:
    waits = Why("move", "it waits for the machine that comes, and stands still then")
    waiting = late.replace(plan, flags=(*plan.flags, Flag("incoming", waits, "defer"), Flag("S", waits)))
    process = await in_thread(launch, waiting, record.path, dies_with_parent=False)
    record = change(record, **run_facts(plan, process))
    try:
        async with (
            await connect_qmp(record.directory, owner=True, alive=lambda: record.running) as session,
            ends(session, record, offer.direct) as there,
        ):
            await settle(record, plan)
            await _offer_disks(session, offer.copied, there)
            taking = asyncio.ensure_future(_take_memory(session, there))
            try:
                yield Arrival(record, plan, session, there)
            finally:
                taking.cancel()
    except ControlError as error:
        if record.running:
            raise
        raise died(waiting, record.path, process.pid) from error


async def _offer_disks(session: Session, disks: Iterable[str], there: Ends) -> None:
    """Export the disks under their names to whoever connects."""
    nodes = await attached(session)
    await getfd(session, there.disks.fileno(), _NBD)
    key = {"tls-creds": there.key} if there.key else {}
    await session.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": _NBD}}, **key})
    for name in disks:
        node = nodes[f"{name}-dev"].top
        export = {"type": "nbd", "id": f"move-{name}", "node-name": node, "name": name, "writable": True}
        await session.execute("block-export-add", export)


async def _take_memory(session: Session, there: Ends) -> None:
    """Give QEMU the one who connects, whose state it is to take."""
    with await accepted(there.memory, there.peer) as connected:
        connected.setblocking(True)
        await getfd(session, connected.fileno(), _MEMORY)
    # Disks that both hosts see are the source's until this side runs: it may go on with them there.
    capabilities = {"x-ignore-shared": False, "late-block-activate": True, "events": True}
    await set_migration(session, capabilities=capabilities, parameters={"tls-creds": there.key})
    await migrate_incoming(session, f"fd:{_MEMORY}")


async def finish(arrival: Arrival, disks: Sequence[Path]) -> Record:
    """Wait until all of it is here, disks on stable storage; from then on it is ready. Raises ControlError, OSError."""
    session, record = arrival.session, arrival.record
    with session.listen("MIGRATION") as events:
        while (now := await migration(session)).status != "completed":
            if now.status in ("failed", "cancelled"):
                raise ControlError(f"the machine's memory did not come: {now.status}", why=now.error)
            await heard(events, _LOOK)
    syncing = [in_thread(sync_file, path) for path in disks]
    await asyncio.gather(session.execute("nbd-server-stop"), *syncing, in_thread(sync_folder, record.path))
    return await in_thread(moves.ready, record, moves.token_of(record))


async def let_run(record: Record, session: Session | None = None) -> tuple[Record, Event | None]:
    """Its source has left: it is ours, and runs; the event that says so, None where its QEMU is gone and it is off.

    Nothing happens to one that is ours and runs. Raises StateError, ControlError. Without a session of the caller's, who
    calls `settle_in` then, it is put right for later moves here.
    """
    record, event = await in_thread(moves.take_over, record, moves.token_of(record)), None
    if record.running and session is not None:
        event = await _running(session)
    elif record.running:
        async with await connect_qmp(record.directory, owner=True, alive=lambda: record.running) as own:
            event = await _running(own)
            await _as_usual(own)
    record = change(record, owner_pid=0, owner_started=0)
    await in_thread(moves.keep, record)
    return record, event


async def _running(session: Session) -> Event:
    with session.listen("RESUME") as events:
        if (await status(session)).running:
            return Event("RESUME", {}, time.time())
        await cont(session)
        return await events.next(_EVENT_SECONDS)


async def _as_usual(session: Session) -> None:
    await set_migration(session, capabilities={"events": False}, parameters={"tls-creds": ""})


async def settle_in(record: Record, session: Session) -> str:
    """Set the guest's clock, which stood still, and have it replicated from here; what is to be said of that."""
    await _as_usual(session)
    await in_thread(replicate, record, load_spec(record.spec))
    setting = asyncio.ensure_future(set_clock(newest(record), session, briefly=True))
    try:
        while not setting.done() and record.running:
            await asyncio.wait([setting], timeout=_LOOK)
        if not record.running:
            return f"its QEMU ended on {os.uname().nodename} once it ran there: it is off there"
        return (await setting).note
    finally:
        setting.cancel()
        await asyncio.wait([setting])
