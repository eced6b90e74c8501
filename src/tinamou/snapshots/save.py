"""Taking a checkpoint of a running machine: its devices in milliseconds, its memory before and after, its disks too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.blueprint.stored import plain
from tinamou.control import Listener, Session
from tinamou.control.commands import cont, migrate, migration, set_migration, stop, wait_migrated
from tinamou.digest import file_digest
from tinamou.errors import ControlError, StateError
from tinamou.facts import files
from tinamou.facts.qemu import loses_writes, numbered
from tinamou.late import dataclass
from tinamou.snapshots import branching, stream
from tinamou.snapshots.checkpoint import Checkpoint, File, Kind, checkpoints_dir, host_cpu, identity_of, write
from tinamou.snapshots.create import grow
from tinamou.snapshots.disks_of_forks import keep_files, keep_frozen
from tinamou.snapshots.hardware import digest
from tinamou.snapshots.history import History
from tinamou.snapshots.machine_disks import Disks
from tinamou.snapshots.ram import Held, held
from tinamou.snapshots.resting import discard
from tinamou.snapshots.state_file import saved_to
from tinamou.state.record import Record
from tinamou.system.lock import take
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import process_of
from tinamou.tuning.memory import RAM

__all__ = [
    "DEVICES",
    "FAST",
    "STREAM",
    "WHOLE",
    "Moment",
    "entry",
    "forkable",
    "let_run_on",
    "marked",
    "memory_of",
    "reserve",
    "running_on",
    "save_instant",
    "save_portable",
    "send_state",
]


from tinamou.system.closing import Closing, IfFailed


@dataclass(frozen=True)
class Moment:
    """What is saved: the running machine, its plan and monitor; what its guest can do; whether forks map memory read-only.

    ``ephemeral`` is a checkpoint that is gone with this process; ``disks`` is how to change the machine's disks; ``why``
    says why the checkpoint is of its kind.
    """

    record: Record
    plan: Plan
    session: Session
    resident: bool
    guest: dict[str, Any]
    read_only: bool
    ephemeral: bool = False
    disks: tuple[Disks, History] | None = None
    why: str = ""


def forkable(plan: Plan) -> bool:
    """Whether the machine's memory can be copied from outside."""
    return any(
        element.id == RAM and element.props.get("share") is True and "mem-path" in element.props for element in plan.elements
    )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


@contextlib.contextmanager
def reserve(name: str) -> Iterator[Path]:
    """The folder of a checkpoint being taken; gone again when the block raises. Raises StateError for its name."""
    if not _NAME.fullmatch(name):
        why = "it becomes the name of a folder and a file"
        fix = "letters, digits, dot, dash and underscore, 120 at most, a letter or digit first"
        raise StateError(f"a checkpoint cannot be named {name!r}", why=why, fix=fix)
    directory = checkpoints_dir() / name
    try:
        directory.mkdir(mode=0o711)
    except FileExistsError:
        what, fix = f"there is a checkpoint {name} already", f"choose another name, or: tinamou checkpoints rm {name}"
        if not (directory / "checkpoint.json").exists():
            what, fix = f"the name {name} is still in use by disks that rest on a removed checkpoint", "choose another name"
        raise StateError(what, fix=fix) from None
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with Closing(lock), IfFailed(discard, directory):
        take(lock, directory / "lock")
        yield directory


async def save_instant(moment: Moment, name: str) -> Checkpoint:
    """Checkpoint a forkable machine that goes on. Raises ControlError, StateError; nothing is left then, and it runs on.

    The state of its devices is saved in a moment's stop, in which its memory becomes that of the checkpoint (branching.py).
    """
    began = time.perf_counter()
    element = next(one for one in moment.plan.elements if one.id == RAM)
    size, merge = int(str(element.props["size"])), bool(element.props["merge"])
    record, elsewhere = moment.record, bool(moment.record.spec.get("share"))
    branch = branching.way(moment.session, record.pid, record.name, size, merge=merge, works_elsewhere=elsewhere)
    with reserve(name) as directory:
        async with branch as way:
            await way.ahead()
            pause = await _save(moment, lambda switch: _stand_still(moment, switch, directory, way))
            if not moment.ephemeral:
                await branching.tidied(moment.record.pid)
            memories = [way.memory] if way.changes is None else [way.memory, way.changes]
            with held(
                memories, directory, writable=bool(branching.why_not()) and not moment.read_only, ephemeral=moment.ephemeral
            ) as kept:
                moment = late.replace(moment, why=way.why)
                checkpoint = await in_thread(entry, moment, directory, "instant", pause, began, kept)
                write(checkpoint)
        return checkpoint


async def save_portable(moment: Moment, name: str) -> Checkpoint:
    """Checkpoint any machine that goes on, its memory in a compressed stream beside its disks.

    The memory is sent while the machine runs, which stands still for the last of it; for all of it where its QEMU would lose
    what the guest writes meanwhile. Raises ControlError, StateError; nothing is left then, and it runs on.
    """
    began = time.perf_counter()
    with reserve(name) as directory:
        pause = await _save(moment, lambda switch: _poured(moment, switch, directory))
        checkpoint = await in_thread(entry, moment, directory, "portable", pause, began)
        write(checkpoint)
        return checkpoint


async def _poured(moment: Moment, switch: _Switch | None, directory: Path) -> float:
    session = moment.session
    at_rest = {} if switch is None else {"at_rest": switch.switch}
    with marked(moment.record), session.listen("STOP", "RESUME") as events:
        async with running_on(session, WHOLE):
            seconds = stream.saving_seconds(memory_of(moment.plan))
            if loses_writes(session.version, moment.plan.accel):
                await stop(session)
            await stream.pour(session, directory / STREAM, moment.record.uid, **at_rest, seconds=seconds)
            await cont(session)
        return await _stood_still(events)


STREAM = "state.zst"
"""The file of a whole state, memory included."""


def entry(moment: Moment, directory: Path, kind: Kind, pause: float, began: float, kept: Sequence[Held] = ()) -> Checkpoint:
    """The entry of what was saved in ``directory``, with everything else that belongs to it copied there. Raises OSError.

    ``kept`` is the memory of an instant one, and what is to be written over it.
    """
    state = directory / (STREAM if kind == "portable" else "state")
    folder = Path(moment.record.directory)
    disks = keep_frozen(*moment.disks, directory) if moment.disks else {}
    files = keep_files(folder, directory, moment.record.uid)
    machine = moment.record
    return Checkpoint(
        name=directory.name,
        directory=str(directory),
        kind=kind,
        machine=machine.name,
        created=time.time(),
        plan=plain(moment.plan),
        record=late.asdict(machine),
        digest=digest(moment.plan),
        binary=identity_of(moment.plan.binary),
        version=numbered(moment.session.version),
        package=moment.session.package,
        state=File.of(state),
        state_sha256=file_digest(state),
        ram=kept[0] if kept else None,
        changes=kept[1] if len(kept) > 1 else None,
        parent=machine.parent,
        resident=moment.resident,
        guest=moment.guest,
        read_only=moment.read_only,
        owner=late.astuple(process_of(os.getpid())) if moment.ephemeral else None,
        disks=disks,
        files=files,
        pause=pause,
        memory=memory_of(moment.plan),
        why=moment.why,
        cpu="" if moment.plan.accel == "tcg" else host_cpu(),
        took=time.perf_counter() - began,
    )


def memory_of(plan: Plan) -> int:
    """Bytes of memory a machine of this plan has."""
    return sum(int(str(element.props["size"])) for element in plan.elements if element.id.startswith("ram"))


class _Switch:
    """Fresh files for the guest to write to, made ready beforehand and put in front while the machine stands still."""

    def __init__(self, disks: Disks, history: History) -> None:
        self._stands, self._ready, self._done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(grow(disks, history, *history.present, quiesce=self._at_rest))

    @contextlib.asynccontextmanager
    async def _at_rest(self) -> AsyncIterator[bool]:
        self._ready.set()
        await self._stands.wait()
        yield False
        self._done.set()

    async def ready(self) -> None:
        """Return when only the switch itself is left. Raises what making ready raised."""
        await self._until(self._ready)

    async def switch(self) -> None:
        """The machine stands still: switch now."""
        self._stands.set()
        await self._until(self._done)

    async def finish(self) -> None:
        """Return when it is written down."""
        await self._task

    async def give_up(self) -> None:
        """Take back what was made ready."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _until(self, event: asyncio.Event) -> None:
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not event.is_set():
            self._task.result()


async def _save(moment: Moment, work: Callable[[_Switch | None], Awaitable[float]]) -> float:
    """Save by ``work``, with the machine's disks frozen while it stands still; returns how long that was."""
    switch = _Switch(*moment.disks) if moment.disks else None
    try:
        if switch is not None:
            await switch.ready()
        pause = await work(switch)
        if switch is not None:
            await switch.finish()
    except BaseException:
        if switch is not None:
            await switch.give_up()
        raise
    return pause


async def _stand_still(moment: Moment, switch: _Switch | None, directory: Path, way: branching.Way) -> float:
    session = moment.session
    with marked(moment.record), session.listen("STOP", "RESUME") as events:
        async with running_on(session, DEVICES):
            await _save_state(session, directory / "state", moment.plan.binary, switch)
            await way.at_rest()
            await cont(session)
        return await _stood_still(events)


async def _stood_still(events: Listener) -> float:
    """Seconds from the first stop to the machine's running on, by QEMU's own clock. Raises ControlError."""
    try:
        async with asyncio.timeout(_EVENT_SECONDS):
            stopped = await events.next()
            while (resumed := await events.next()).name != "RESUME":
                pass
    except TimeoutError:
        raise ControlError("QEMU did not say that the machine runs on", why=f"not within {_EVENT_SECONDS:g} s") from None
    return resumed.at - stopped.at


@contextlib.contextmanager
def marked(record: Record) -> Iterator[None]:
    """Write down that the machine may stand still because of this process: whoever finds it dead lets the machine run on."""
    mark = record.file(files.CHECKPOINTING)
    me = process_of(os.getpid())
    mark.write_text(f"{me.pid} {me.started}")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


_EVENT_SECONDS, _SAVE_SECONDS = 10.0, 60.0
"""How long QEMU may take to tell what it did, and to save its devices."""

DEVICES: Mapping[str, bool] = {"x-ignore-shared": True, "pause-before-switchover": True}
WHOLE: Mapping[str, bool] = {"x-ignore-shared": False, "pause-before-switchover": True}
"""Capabilities for saving the memory with the devices; a fork was loaded without, and has the first one set."""
FAST: Mapping[str, object] = {"max-bandwidth": 1 << 40}
"""No bound on how fast it is sent: QEMU's own is 128 MiB a second."""


@contextlib.asynccontextmanager
async def running_on(session: Session, capabilities: Mapping[str, bool]) -> AsyncIterator[None]:
    """Whatever happens in the block, the machine runs on after it and can be saved again; so set up, it can be saved."""
    try:
        await set_migration(session, capabilities=capabilities, parameters=FAST)
        yield
    except BaseException:
        await asyncio.shield(let_run_on(session))
        raise
    finally:
        with contextlib.suppress(ControlError):
            await set_migration(session, capabilities=dict.fromkeys(capabilities, False))


async def let_run_on(session: Session) -> None:
    """Give up a save that is under way, if one is, and let the machine run."""
    with contextlib.suppress(ControlError):
        if (await migration(session)).status not in ("none", "completed", "failed", "cancelled"):
            await session.execute("migrate_cancel")
            with contextlib.suppress(ControlError, TimeoutError):
                await wait_migrated(session, 10.0)
        await cont(session)


async def _save_state(session: Session, path: Path, binary: str, switch: _Switch | None) -> None:
    """Stop the machine and write the state of its devices, all but its memory."""
    try:
        async with asyncio.timeout(_SAVE_SECONDS), saved_to(session, path, binary) as uri:
            await send_state(session, uri, None if switch is None else switch.switch)
    except TimeoutError:
        raise ControlError(f"QEMU did not save the machine's state within {_SAVE_SECONDS:g} s") from None


async def send_state(session: Session, uri: str, at_rest: Callable[[], Awaitable[None]] | None = None) -> None:
    """Stop the machine and send its state to ``uri``; ``at_rest`` is done in between. Raises ControlError.

    QEMU has been told to pause before the switchover.
    """
    await migrate(session, uri)
    while (now := await migration(session)).status != "pre-switchover":
        if now.status in ("completed", "failed", "cancelled"):
            raise ControlError(f"QEMU did not save the machine's state: {now.status}", why=now.error)
        await asyncio.sleep(0.0005)
    if at_rest is not None:
        await at_rest()
    await session.execute("migrate-continue", state="pre-switchover")
    await wait_migrated(session)
