"""Suspending a machine to disk and waking it again, across a restart of the host: its folder holds the state meanwhile.

::

    MACHINE/suspended/checkpoint.json   the entry, written when the state is whole; removed before the machine runs on
    MACHINE/suspended/state.zst         memory and devices; the disks stay where they are

While there is an entry the machine's QEMU, if one lives, must not run on: its disks would no longer fit the state.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from tinamou.control import Session
from tinamou.control.commands import cont, quit
from tinamou.errors import StateError, TinamouError
from tinamou.facts import files
from tinamou.guest.carry.port import kept_out
from tinamou.guest.clock import Clock, set_clock
from tinamou.late import dataclass
from tinamou.machine import encrypted, shares
from tinamou.machine.connected import Connected
from tinamou.machine.portable import loaded, saved_plan
from tinamou.machine.reconcile import claim, end_machine
from tinamou.machine.turns import turn
from tinamou.snapshots import save, stream
from tinamou.snapshots.checkpoint import Checkpoint, verify
from tinamou.snapshots.checkpoint import write as write_entry
from tinamou.snapshots.orphans import forget_suspended, is_suspended, suspended
from tinamou.state.record import Record, change
from tinamou.system.closing import IfFailed
from tinamou.system.durable import sync_file, sync_folder
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import wait_gone

__all__ = ["Awake", "suspend", "wake_up"]


@dataclass(frozen=True)
class Awake:
    """A machine that was suspended and runs: its record, owned by this process, and what became of its guest's clock."""

    record: Record
    clock: Clock


async def suspend(machine: Connected) -> Checkpoint:
    """Save a running machine to its folder and end its QEMU; what it had of the host is given back.

    Raises StateError for a throw-away machine, and for one whose state cannot be saved; ControlError. It runs on then.
    """
    record = machine.record
    if record.ephemeral:
        fix = "start it with keep=True, or in the background: tinamou run -d"
        raise StateError(f"{record.name} is thrown away when it ends, and cannot be suspended", fix=fix)
    encrypted.refuse(record, "suspended")
    async with turn(record, "suspend"), kept_out(record.directory, await machine.session()):
        async with shares.taken_out(machine, over=lambda: is_suspended(record)):
            saved = await _saved(record, await machine.session())
        await machine.close()
        await in_thread(end_machine, record)
    return saved


async def _saved(record: Record, session: Session) -> Checkpoint:
    plan = await saved_plan(record, session)
    began = time.perf_counter()
    folder = record.file(files.SUSPENDED)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    moment = save.Moment(record, plan, session, resident=False, guest={}, read_only=False, why="it was suspended")
    try:
        with save.marked(record):
            async with save.running_on(session, save.WHOLE):
                await session.execute("stop")
                seconds = stream.saving_seconds(save.memory_of(plan))
                await stream.pour(session, folder / save.STREAM, record.uid, seconds=seconds)
                saved = await in_thread(save.entry, moment, folder, "portable", 0.0, began)
                _write_surely(saved, folder)
            with contextlib.suppress(TinamouError, TimeoutError):
                await quit(session)
            await in_thread(wait_gone, record.process, 10.0)
    except BaseException:
        if not is_suspended(record):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return saved


def _write_surely(saved: Checkpoint, folder: Path) -> None:
    """From here on the machine is suspended, or an error is raised and it is not."""
    with IfFailed((folder / "checkpoint.json").unlink, missing_ok=True):
        write_entry(saved)
        sync_file(folder / "checkpoint.json")
        sync_folder(folder)


async def wake_up(record: Record, *, dies_with_parent: bool = False) -> Awake:
    """Take a suspended machine up where it was: the same machine, its clock set right.

    Its shared folders are plugged in and mounted again. Raises StateError for a damaged state, other hardware or a
    QEMU that does not take it, LaunchError, ControlError; it is still suspended then.
    """
    saved = suspended(record)
    if saved is None:
        raise StateError(f"machine {record.name} is not suspended", fix=f"tinamou start {record.name}")
    await in_thread(verify, saved)
    record = await in_thread(claim, record)
    began = time.perf_counter()
    try:
        async with loaded(saved, record, dies_with_parent=dies_with_parent) as up:
            record = change(up.record, timings={"resume": round(time.perf_counter() - began, 4)})
            with save.marked(record):
                forget_suspended(record)
                await cont(up.session)
    except BaseException:
        if is_suspended(record):
            await in_thread(end_machine, record)
        raise
    clock = await set_clock(record)
    if record.has("share"):
        async with Connected(record) as machine:
            await (shares.attach(machine) if record.agent else shares.plug(machine))
    return Awake(record, clock)
