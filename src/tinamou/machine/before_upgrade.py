"""Which machines would survive another QEMU: each is tried with its own devices, and nothing is done to it.

Of a running machine a stand-in is started, stopped, with the QEMU it runs on, and what that saves is loaded by the other
one. A saved state is itself loaded, into a stand-in, which never runs. Versions and lists of them decide nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

from tinamou import late
from tinamou.blueprint import Flag, Plan, Why
from tinamou.control import Session, connect_qmp
from tinamou.control.commands import set_migration
from tinamou.errors import ProbeError, StateError, TinamouError
from tinamou.facts import files
from tinamou.facts.qemu import numbered
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.launch.process import start as launch
from tinamou.machine import checkpoints, encrypted
from tinamou.machine.portable import saved_plan
from tinamou.machine.stand_in import folder, reason_against, stand_in, tapped
from tinamou.machine.starting import plan_again
from tinamou.machine.upgrading import kept_from_it, planned, version_of
from tinamou.prepare import helper_processes
from tinamou.probe.qemu import choosing, find_binary, probe_qemu
from tinamou.probe.topology import kib
from tinamou.snapshots import save, stream
from tinamou.snapshots.checkpoint import Checkpoint, identity_of
from tinamou.snapshots.hardware import fitted
from tinamou.snapshots.orphans import is_suspended, suspended
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.system.logs import complete, last_lines
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import Process, alive, end

__all__ = ["COLUMNS", "NotTriedError", "Prediction", "predict", "sample", "take"]

COLUMNS = ("name", "kind", "qemu", "survives", "tried", "why")
_SECONDS = 60.0
_STAND_IN, _STATE = "a stand-in with its devices", "its saved state"


@dataclass(frozen=True)
class Prediction:
    """A machine or checkpoint ``name``, and whether another QEMU takes it over.

    ``kind`` is running, suspended, portable or instant (checkpoints); ``qemu`` is what it runs on, or was saved by.
    ``survives`` is None where that was not tried; ``tried`` is what was loaded, empty for nothing; ``why`` is the reason for
    both, or what QEMU said. ``seconds`` is how long it took.
    """

    name: str
    kind: Literal["running", "suspended", "portable", "instant"]
    qemu: str
    survives: bool | None
    tried: str = ""
    why: str = ""
    seconds: float = 0.0


class NotTriedError(StateError):
    """There is a reason not to try."""


async def predict(binary: str, *, progress: Progress = silent) -> list[Prediction]:
    """Try ``binary``, said as in ``$TINAMOU_QEMU``, with every machine that runs or is suspended, and every checkpoint.

    Raises ProbeError for what is no QEMU.
    """
    records = [record for record in machines.machines() if record.running or is_suspended(record)]
    saved = [one for one in checkpoints.every() if one.owner is None]
    archs = {record.arch for record in records} | {str(one.plan["arch"]) for one in saved}
    await in_thread(_refuse_none, binary, archs or {os.uname().machine})
    found = []
    for record in records:
        progress(f"trying {record.name}", None)
        found.append(await _of_machine(record, binary))
    for one in saved:
        progress(f"trying {one.name}", None)
        found.append(await _of_checkpoint(one, binary))
    return found


def _refuse_none(binary: str, archs: set[str]) -> None:
    """Raises ProbeError where there is no QEMU for any of these."""
    errors = []
    for arch in archs:
        try:
            with choosing(binary):
                probe_qemu(find_binary(arch), arch)
        except ProbeError as error:
            errors.append(error)
    if len(errors) == len(archs):
        raise errors[0]


async def _of_machine(record: Record, binary: str) -> Prediction:
    if record.running:
        row = Prediction(record.name, "running", record.package or record.binary, None, _STAND_IN)
        return await _tried(row, lambda: _running(record, binary))
    row = Prediction(record.name, "suspended", record.package or record.binary, None, _STATE)
    return await _tried(row, lambda: _suspended(record, binary))


async def _of_checkpoint(saved: Checkpoint, binary: str) -> Prediction:
    row = Prediction(saved.name, saved.kind, saved.package or saved.version, None, _STATE)
    if saved.kind == "portable":
        return await _tried(row, lambda: _portable(saved, binary))
    with choosing(binary):
        same = identity_of(find_binary(saved.plan["arch"])) == saved.binary
    why = "it is the very QEMU that saved it" if same else "an instant checkpoint is loaded by the very QEMU that saved it"
    return late.replace(row, survives=same, tried="", why=why if same else f"{why}; take a portable one of its machine")


async def _tried(row: Prediction, work: Callable[[], Awaitable[str]]) -> Prediction:
    """The row with its end: ``work`` returns what must be said where it went well."""
    began = time.monotonic()
    try:
        row = late.replace(row, survives=True, why=await work())
    except NotTriedError as error:
        row = late.replace(row, tried="", why=f"not tried, because {error.what}")
    except TinamouError as error:
        reasons = [str(one) for one in error.problems] or [error.why]
        row = late.replace(row, survives=False, why="; ".join(filter(None, [error.what, *reasons])))
    return late.replace(row, seconds=round(time.monotonic() - began, 2))


async def _running(record: Record, binary: str) -> str:
    encrypted.refuse(record, "upgraded")
    session = await connect_qmp(record.directory, alive=lambda: record.running)
    async with session:
        plan, runs = await saved_plan(record, session), version_of(session)
    new = await in_thread(_planned, record, plan, binary)
    if why := reason_against(plan):
        raise NotTriedError(why)
    here = probe_qemu(plan.binary)
    if not runs.startswith(numbered(here.version)) or (record.package and record.package != here.package):
        raise NotTriedError(f"the QEMU it runs on ({runs}) is not on this host any more, and cannot save a stand-in's state")
    async with sample(plan, runs) as state:
        await take(new, state)
    return f"an upgrade suspends and resumes it, as {way}" if (way := kept_from_it(plan)) else ""


@contextlib.asynccontextmanager
async def sample(plan: Plan, runs: str) -> AsyncIterator[Path]:
    """What the stand-in of a machine saves of its devices, in a file, by the QEMU it runs on, which ``runs`` names."""
    with folder() as (directory, uid):
        state = directory / save.STREAM
        try:
            async with _up(stand_in(plan, directory, uid, plan.binary, shared=True), directory) as session:
                await set_migration(session, capabilities=save.DEVICES, parameters=save.FAST)
                await stream.pour(session, state, uid, seconds=_SECONDS)
        except TinamouError as error:
            raise NotTriedError(f"its stand-in does not start on {runs}: {error.why or error.what}") from error
        yield state


async def take(plan: Plan, state: Path) -> None:
    """Load that into the stand-in of this plan. Raises StateError with what QEMU says."""
    with folder() as (directory, uid):
        await _loaded(stand_in(plan, directory, uid, plan.binary, shared=True), directory, state, uid, left_out=True)


def _planned(record: Record, plan: Plan, binary: str) -> Plan:
    """The plan for that QEMU of a machine with this one. Raises StateError where it would be another machine."""
    with choosing(binary):
        if not kept_from_it(plan):
            return planned(record, plan)
        new = plan_again(record.name, plan.machine_type)
    return _same(record.name, plan, new)


def _same(name: str, plan: Plan, new: Plan | None) -> Plan:
    if new is None:
        raise NotTriedError("it is gone")
    new, found = fitted(new, plan)
    if found:
        raise StateError(f"{name} would not be the machine it is", why="; ".join(found))
    return new


async def _suspended(record: Record, binary: str) -> str:
    saved = await in_thread(suspended, record)
    if saved is None:
        raise NotTriedError("it is not suspended any more")

    def planned_anew() -> Plan:
        with choosing(binary):
            return _same(record.name, saved.loaded_plan(), plan_again(record.name, str(saved.plan["machine_type"])))

    return await _its_state(saved, await in_thread(planned_anew))


async def _portable(saved: Checkpoint, binary: str) -> str:
    with choosing(binary):
        found = find_binary(saved.plan["arch"])
    return await _its_state(saved, late.replace(saved.loaded_plan(), binary=found))


async def _its_state(saved: Checkpoint, plan: Plan) -> str:
    if why := reason_against(plan):
        raise NotTriedError(why)
    if tapped(plan):
        raise NotTriedError("its cards are on tap interfaces, and what its guest agreed to with them needs such")
    free = int(kib(Path("/proc/meminfo").read_text(), "MemAvailable"))  # noqa: ASYNC240
    if saved.memory > free * 3 // 4:
        raise NotTriedError(f"its memory of {saved.memory >> 20} MiB has no room here: {free >> 20} MiB are free")
    with folder() as (directory, uid):
        made = stand_in(plan, directory, uid, plan.binary, shared=False, kept=Path(saved.directory))
        await _loaded(made, directory, Path(saved.state.path), uid, left_out=False)
    return ""


async def _loaded(plan: Plan, directory: Path, state: Path, uid: int | None, *, left_out: bool) -> None:
    """Load a state into a stand-in, without its memory where that was left out. Raises what says why it cannot be."""
    waits = Why("stand-in", "it waits for the state that is tried")
    waiting = late.replace(plan, flags=(*plan.flags, Flag("incoming", waits, "defer")))
    async with _up(waiting, directory) as session:
        await set_migration(session, capabilities={"x-ignore-shared": left_out})
        await stream.load(session, state, uid)


@contextlib.asynccontextmanager
async def _up(plan: Plan, directory: Path) -> AsyncIterator[Session]:
    """Its QEMU, which never runs the guest. Raises StateError with what it said where it ended."""
    stopped = late.replace(plan, flags=(*plan.flags, Flag("S", Why("stand-in", "it never runs"))))
    process: Process | None = None
    try:
        await in_thread(helper_processes.start_all, stopped, directory)
        began = launch(stopped, directory, dies_with_parent=True)
        process = began
        async with await connect_qmp(str(directory), owner=True, alive=lambda: alive(began)) as session:
            yield session
    except TinamouError as error:
        complete(directory / files.QEMU_LOG)
        said = " ".join(last_lines(directory / files.QEMU_LOG).split("\n")[-3:])
        raise StateError(error.what, why=said or error.why) from error
    finally:
        if process is not None:
            await in_thread(end, process)
