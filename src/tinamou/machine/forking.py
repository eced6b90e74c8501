"""Checkpoints of machines and machines from checkpoints, from name or object to result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Literal

from tinamou import late
from tinamou.blueprint import HandOver, LoadProfiles, MakeCgroup, MakeDir, Plan
from tinamou.errors import StateError, TinamouError
from tinamou.facts import files
from tinamou.guest.carry.port import kept_out
from tinamou.guest.clock import RIGHT, ahead_of, not_set, set_clock
from tinamou.guest.ready import SETTLED
from tinamou.guest.resident import Identity, Line
from tinamou.images.progress import Progress, silent
from tinamou.machine import encrypted, fork_nets, host_keys, portable, shares
from tinamou.machine.connected import Connected
from tinamou.machine.disks import opened
from tinamou.machine.portable import saved_plan
from tinamou.machine.reconcile import end_machine, reconcile
from tinamou.machine.turns import turn
from tinamou.prepare import helper_processes
from tinamou.prepare.apply import apply
from tinamou.probe.qemu import probe_qemu
from tinamou.snapshots import branching, fork, ram, save
from tinamou.snapshots.checkpoint import Checkpoint, Kind, check, verify
from tinamou.snapshots.disks_of_forks import give_disks, give_files
from tinamou.snapshots.fork import Restored
from tinamou.snapshots.resting import discard
from tinamou.state import machines
from tinamou.state.folder import plan_data, write_plan
from tinamou.state.record import Record, change
from tinamou.system.loop_thread import dropped, in_thread
from tinamou.system.spawn import process_of

__all__ = ["Request", "checkpoint_by_name", "fork_many", "fork_running", "leave_running", "notes_of", "take_checkpoint"]

Request = Literal["auto", "instant", "portable"]
"""The kind of checkpoint that is asked for."""

AT_ONCE = 2
"""Forks that start at the same time, for each CPU of the host."""


async def take_checkpoint(
    machine: Connected,
    name: str = "",
    *,
    ephemeral: bool = False,
    kind: Request = "auto",
    progress: Progress = silent,
) -> Checkpoint:
    """Checkpoint a running machine, which goes on; an ``ephemeral`` one is gone with this process.

    With ``auto`` the checkpoint is instant where the machine allows it, else portable, and says why. ``progress`` is told
    where its guest's clock is behind by more than a second then. Raises StateError, ControlError, GuestError.
    """
    encrypted.refuse(machine.record, "checkpointed or forked")
    held = await machine.held_line()
    async with (
        turn(machine.record, "checkpoint"),
        kept_out(machine.record.directory, await machine.session()),
        shares.taken_out(machine),
    ):
        taken, line = await _taken(machine, name, held, ephemeral=ephemeral, request=kind, progress=progress)
        try:
            await _set_clock(machine, held, line, taken.pause, progress)
        finally:
            if line is not None and line is not held:
                line.close()
    return taken


async def _set_clock(machine: Connected, held: Line | None, line: Line | None, pause: float, progress: Progress) -> None:
    """The guest's clock stood still for ``pause`` seconds. On a line that is ``held`` nobody waits for the answer here."""
    ahead = ahead_of(machine.record.spec)
    if held is not None and ahead is not None:
        await held.begin_to_become(Identity(ahead=ahead))
    elif line is not None or pause > RIGHT:
        clock = await set_clock(machine.record, await machine.session(), line=line, agent=machine.agent)
        if clock.note:
            progress(clock.note, None)


async def _taken(
    machine: Connected, name: str, held: Line | None, *, ephemeral: bool, request: Request, progress: Progress
) -> tuple[Checkpoint, Line | None]:
    """The checkpoint, and the line to the guest's resident that was opened for it, or is held."""
    record, session = machine.refresh(), await machine.session()
    plan = await saved_plan(record, session)
    chosen, why = _kind(record, plan, request)
    line, found = await _prepare_guest(machine, plan, held, progress)
    try:
        read_only = probe_qemu(plan.binary).has("property:memory-backend-file.rom")
        moment = save.Moment(record, plan, session, line is not None, found, read_only, ephemeral, why=why)
        take = save.save_instant if chosen == "instant" else save.save_portable
        wanted = name or f"{record.name}-{secrets.token_hex(3)}"
        if not any(element.kind == "blockdev" for element in plan.elements):
            return await take(moment, wanted), line
        async with opened(record, "checkpoint") as (disks, history):
            return await take(late.replace(moment, disks=(disks, history)), wanted), line
    except BaseException:
        if line is not None and line is not held:
            line.close()
        raise


def _kind(record: Record, plan: Plan, request: Request) -> tuple[Kind, str]:
    """Which kind of checkpoint, and why. Raises StateError when an instant one is asked for and cannot be."""
    if request == "portable":
        return "portable", "it was asked for"
    outside = plan_data(record).get("outside", [])
    if not save.forkable(plan):
        reason = "it shares its memory with other forks" if record.parent else "it was not started forkable"
        fix = "start it with --set memory.forkable=true (in Python: Machine(forkable=True))"
    elif outside:
        reason, fix = f"its forks would lack what it has beside QEMU: {'; '.join(outside)}", "leave those settings out"
    else:
        return "instant", "its memory can be copied while it runs"
    if request == "instant":
        raise StateError(
            f"{record.name} cannot be checkpointed in an instant", why=reason, fix=f"{fix}, or take a portable one"
        )
    return "portable", reason


_FIND_SECONDS = 120.0
_FIND = f"""
{SETTLED}
for mac; do
    tries=0
    until grep -q "^$mac" /sys/class/net/*/address 2>/dev/null || [ $tries -gt 100 ]; do
        tries=$((tries + 1)); sleep 0.1
    done
done
ls /etc/ssh/ssh_host_*_key 2>/dev/null
cat /sys/class/net/*/address 2>/dev/null
:
"""
"""Waits until the tiny guest has settled and the network interfaces with the addresses in its words are there, 10 s
at most for each; prints the ssh host keys and the addresses."""


async def _prepare_guest(
    machine: Connected, plan: Plan, held: Line | None, progress: Progress
) -> tuple[Line | None, dict[str, object]]:
    """The resident in the guest, hot, and what a fork must make anew; nothing for a guest without an agent.

    A guest that still boots is waited for.
    """
    from tinamou.guest.resident.install import install
    from tinamou.machine.waiting import Waiting

    record = machine.record
    if not record.agent:
        return None, {}
    line = held
    if line is None:
        wait = Waiting(record.name, None, progress)
        coming = install(machine.agent, str(record.file(files.RESIDENT)), record.arch, patience=wait.left)
        line = await wait.answer(coming)
    cards = [str(element.props["mac"]).lower() for element in plan.elements if "mac" in element.props]
    found = (await line.run(["sh", "-c", _FIND, "sh", *cards], timeout=_FIND_SECONDS)).text.split()
    return line, {"host_keys": [one for one in found if "/" in one], "macs": [one for one in found if one in cards]}


async def fork_many(
    checkpoint: Checkpoint,
    count: int,
    *,
    ephemeral: bool = True,
    dies_with_parent: bool = True,
    names: Sequence[str] = (),
    stopped: bool = False,
    same: bool = False,
) -> list[Restored]:
    """So many machines from one checkpoint, each with its own identity; all of them or none. Raises the first error.

    ``stopped`` leaves them waiting, see `fork.hand_out`; ``same`` keeps the identity of the machine that was saved.
    """
    if checkpoint.kind == "portable":
        await asyncio.to_thread(verify, checkpoint)
    else:
        check(checkpoint)
    reconciling = asyncio.ensure_future(asyncio.to_thread(reconcile))
    records: list[Record] = []
    tasks: list[asyncio.Task[Restored]] = []
    room = asyncio.Semaphore(AT_ONCE * (os.cpu_count() or 1))

    async def one(record: Record) -> Restored:
        async with room:
            return await _one(checkpoint, record, dies_with_parent=dies_with_parent, stopped=stopped, same=same)

    try:
        await in_thread(_enter, records, checkpoint, count, ephemeral, names, same)
        tasks += [asyncio.ensure_future(one(record)) for record in records]
        await reconciling
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                task.result().close()
        for record in records:
            with contextlib.suppress(TinamouError):
                end_machine(late.replace(record, pid=0, ephemeral=True))
        raise


async def fork_running(machine: Connected, count: int, progress: Progress = silent) -> list[Connected]:
    """Fork a running machine: a checkpoint of the moment, which is gone with the last fork. Raises as `take_checkpoint`."""
    await asyncio.to_thread(fork_nets.refuse_twice, machine.name, machine.refresh().spec, count)
    checkpoint = await take_checkpoint(machine, ephemeral=True, progress=progress)
    if checkpoint.kind == "portable":
        progress(f"{machine.name} is forked by a portable checkpoint, as {checkpoint.why}: slower", None)
    directory = Path(checkpoint.directory)
    shutting = asyncio.ensure_future(_shut(machine, directory))
    restored: list[Restored] = []
    try:
        restored = await fork_many(checkpoint, count)
        await shutting
    except BaseException:
        await dropped(shutting)
        for one in restored:
            one.close()
            with contextlib.suppress(TinamouError):
                end_machine(one.record)
        discard(directory)
        raise
    left = [count]

    def ended() -> None:
        left[0] -= 1
        if not left[0]:
            discard(directory)

    for note in notes_of(restored):
        progress(note, None)
    return [Connected.of_fork(one, ended) for one in restored]


def notes_of(restored: Sequence[Restored]) -> list[str]:
    """What must be said of forks, as the record of each has it for whoever takes it."""
    return [note for one in restored for note in one.record.notes]


async def _shut(machine: Connected, directory: Path) -> None:
    """What the machine still has of how its memory was mapped goes while its forks start. Raises StateError."""
    await branching.tidied(machine.record.pid)
    try:
        ram.shut(directory)
    except OSError as error:
        fix = "fork it again, or take a portable checkpoint"
        raise StateError(f"the memory of {machine.name} cannot be sealed", why=str(error), fix=fix) from error


async def _one(checkpoint: Checkpoint, record: Record, *, dies_with_parent: bool, stopped: bool, same: bool) -> Restored:
    began = time.perf_counter()
    source, folder = Path(checkpoint.directory), Path(record.directory)
    await in_thread(give_disks, checkpoint.disks, source, folder, record.uid)
    load = portable.wake if checkpoint.kind == "portable" else _wake_instant
    keys = () if same else checkpoint.guest.get("host_keys", ())
    made = asyncio.ensure_future(host_keys.make(keys, folder))
    try:
        restored = await load(checkpoint, record, made, dies_with_parent=dies_with_parent, stopped=stopped, same=same)
    finally:
        made.cancel()
    clock = [not_set(record).note] if restored.line is None else []
    took = {"fork": round(time.perf_counter() - began, 4)}
    record = change(restored.record, timings=took, notes=[*clock, *restored.notes])
    return late.replace(restored, record=record)


async def _wake_instant(
    checkpoint: Checkpoint,
    record: Record,
    made: Awaitable[host_keys.Files],
    *,
    dies_with_parent: bool,
    stopped: bool,
    same: bool,
) -> Restored:
    plan = fork.fork_plan(checkpoint, record, same=same)
    write_plan(record, plan, beside=checkpoint.plan)
    if not all(isinstance(step, HandOver) for step in plan.steps):
        await in_thread(_prepare, plan, Path(record.directory))

    async def who() -> Identity:
        return Identity(ahead=ahead_of(record.spec)) if same else fork.identity_for(checkpoint, plan, await made)

    async def settle(record: Record, line: Line | None) -> None:
        await shares.attach_to_fork(record, plan, line)

    identity = asyncio.ensure_future(who())
    how = {"dies_with_parent": dies_with_parent, "stopped": stopped}
    return await fork.wake(checkpoint, record, plan, identity, **how, settle=settle)


def _prepare(plan: Plan, directory: Path) -> None:
    """What a fork has beside its disks and its QEMU: a control group, profiles, folders for sockets, and helpers."""
    apply((step for step in plan.steps if isinstance(step, LoadProfiles)), directory)
    apply((step for step in plan.steps if isinstance(step, MakeCgroup | MakeDir)), directory)
    helper_processes.start_all(plan, directory)


def _enter(
    records: list[Record], checkpoint: Checkpoint, count: int, ephemeral: bool, names: Sequence[str], same: bool
) -> None:
    """Folders and entries for so many forks, added to ``records``; none when a name or an address is taken.

    Raises StateError.
    """
    stem = checkpoint.machine[:36].rstrip("-")
    wanted = [*names, *(f"{stem}-{secrets.token_hex(3)}" for _ in range(count - len(names)))]
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(machines.making(name)) for name in wanted]
        uids = machines.lease_uids(made)
        me = process_of(os.getpid())
        fields = {field.name for field in late.fields(Record)}
        saved = {key: value for key, value in checkpoint.record.items() if key in fields}
        fresh = {
            "ephemeral": ephemeral,
            "owner_pid": me.pid,
            "owner_started": me.started,
            "pid": 0,
            "started": 0,
            "log_from": 0,
            "later": {},
            "base": "",
            "template": False,
            "notes": [],
        }
        new = []
        for directory, uid in zip(made, uids, strict=True):
            spec = portable.spec_for(checkpoint, directory.name, same=same)
            port = machines.free_port() if saved.get("ssh_port") else None
            own: dict[str, Any] = {"name": directory.name, "directory": str(directory), "uid": uid, "ssh_port": port}
            own |= {"spec": spec, "former": saved.get("former", []) if same else []}
            record = Record(**{**saved, **fresh, **own, "created": time.time(), "parent": checkpoint.name, "timings": {}})
            give_files(checkpoint.files, Path(checkpoint.directory), directory, uid)
            new.append(record)
        with fork_nets.claimed(checkpoint.machine, checkpoint.record["spec"], count, same=same):
            records += machines.entered(*new)


async def checkpoint_by_name(
    record: Record, name: str = "", *, kind: Request = "auto", progress: Progress = silent
) -> Checkpoint:
    """Checkpoint a machine this process does not own."""
    async with Connected(record, owner=not record.owned) as machine:
        return await take_checkpoint(machine, name, kind=kind, progress=progress)


async def leave_running(
    checkpoint: Checkpoint, count: int, *, names: Sequence[str] = (), same: bool = False
) -> tuple[list[str], list[str]]:
    """Forks that stay when this process ends: their names, and what must be said of them.

    ``same`` keeps the identity of the saved machine.
    """
    restored = await fork_many(checkpoint, count, ephemeral=False, dies_with_parent=False, names=names, same=same)
    for one in restored:
        await Connected.of_fork(one).release()
    return [one.record.name for one in restored], notes_of(restored)
