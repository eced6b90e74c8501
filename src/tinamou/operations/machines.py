"""Machines as a whole: started, left running, stopped, ended, reset, frozen, suspended, removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import Problem, StateError, TinamouError
from tinamou.facts import files
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import encrypted, life
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.reconcile import clear_unfinished
from tinamou.machine.turns import turn
from tinamou.state import machines
from tinamou.state.record import Record, change
from tinamou.system.closing import IfFailed
from tinamou.system.loop_thread import in_thread

if TYPE_CHECKING:
    from tinamou.blueprint import Note
    from tinamou.guest.clock import Clock
    from tinamou.guest.ready import ReadyReport
    from tinamou.snapshots.checkpoint import Checkpoint
    from tinamou.spec import MachineSpec

__all__ = [
    "Launched",
    "kill",
    "launch",
    "pause",
    "remove",
    "reset",
    "restart",
    "resume",
    "start",
    "stop",
    "suspend",
]


@dataclass(frozen=True)
class Launched:
    """A machine that was started and left running: its record, the stages of its boot, what must be said about its plan.

    ``waits`` says why its guest has not answered, empty where it has.
    """

    record: Record
    report: ReadyReport
    notes: tuple[Note, ...] = ()
    waits: str = ""


async def launch(
    spec: MachineSpec, *, wait: bool = True, timeout: float = READY_SECONDS, progress: Progress = silent
) -> Launched:
    """Create a machine that stays, start it, and leave it running once its guest answers.

    With ``wait`` false, or a guest of which nothing says that it has an agent, once QEMU runs. A guest that has not answered
    after ``timeout`` seconds, and may yet, is left running. Raises the error of the stage that failed; the machine is gone
    then.
    """
    from tinamou.machine import booting

    begun = await booting.begun(spec, ephemeral=False, dies_with_parent=False, progress=progress)
    machine = Connected(begun.record, begun.plan, timeout=timeout)
    try:
        return await _up(machine, begun.plan.notes, wait=wait)
    except BaseException:
        await machine.close()
        await in_thread(life.discard, machine.record)
        raise


async def start(name: str, *, wait: bool = True, timeout: float = READY_SECONDS, progress: Progress = silent) -> Launched:
    """Start a stopped machine and leave it running; as `launch`, but that it is stopped again when it fails."""
    from tinamou.machine import booting

    progress(f"starting {name}", None)
    begun = await booting.begun_again(machines.find(name))
    machine = Connected(begun.record, begun.plan, timeout=timeout)
    async with IfFailed(machine.end):
        return await _up(machine, begun.plan.notes, wait=wait)


_HELD = "it waits for its owner, who judges its start (tinamou attest secret, attest launch)"


async def _up(machine: Connected, notes: Sequence[Note], *, wait: bool) -> Launched:
    """Wait for the machine, then let go of it."""
    from tinamou.guest.failure import NotReadyError
    from tinamou.machine import booting

    waits = ""
    try:
        held = encrypted.held_for_owner(machine.record)
        if wait and machine.record.agent and not held:
            report = await booting.until_up(machine)
        else:
            waits = _HELD if held else "nobody waited for it" if machine.record.agent else _unknown(machine)
            report = await booting.until_launched(machine)
    except NotReadyError as error:
        if not error.late:
            raise
        waits = error.why
        report = await booting.until_launched(machine)
    await machine.release()
    return Launched(machine.record, report, (*notes, *(_unmounted(machine) if waits else ())), waits)


def _unmounted(machine: Connected) -> tuple[Note, ...]:
    """What must be said of the shared folders of a guest that has not answered."""
    if not machine.record.has("share"):
        return ()
    from tinamou.machine import shares

    return shares.by_hand(machine.spec)


def _unknown(machine: Connected) -> str:
    """Why nobody waits for the guest's agent; nothing where there shall be none."""
    if machine.spec.seed.agent == "none":
        return ""
    return f"whether it ever will is not known, as nothing is known of a guest agent in {machine.record.image}"


async def restart(
    name: str, *, grace: float = life.GRACE_SECONDS, timeout: float = READY_SECONDS, progress: Progress = silent
) -> Launched:
    """Stop a running machine and start it again. Raises as `stop` and `start`."""
    progress(f"stopping {name}", None)
    await stop(name, grace=grace)
    return await start(name, timeout=timeout, progress=progress)


async def stop(name: str, *, grace: float = life.GRACE_SECONDS) -> bool:
    """Shut a machine's guest down, or cut the power after ``grace`` seconds; whether the guest went by itself.

    Raises StateError for a machine that does not run.
    """
    return await life.stop(Connected.visiting(life.running(name)), grace=grace)


async def kill(name: str) -> None:
    """Cut a machine's power; of a suspended one, give up the saved state. Raises StateError for a machine at rest."""
    record = machines.find(name)
    await in_thread(life.kill, record if life.at_rest(record) == "suspended" else life.running(name))


async def reset(name: str) -> None:
    """Press a machine's reset button; of one with shared folders, wait until its guest has them again.

    Raises StateError, ControlError, GuestError.
    """
    record = life.running(name)
    if not (record.agent and record.has("share")):
        await life.reset(record)
        return
    from tinamou.machine import booting

    async with Connected(record, owner=not record.owned) as machine:
        await booting.reset(machine)


async def pause(name: str) -> None:
    """Freeze a machine's virtual CPUs. Raises StateError, ControlError."""
    await life.command(life.running(name), "stop")


async def resume(name: str) -> Clock:
    """Let a frozen machine run on, or take a suspended one up where it was; what became of its guest's clock.

    Raises StateError, ControlError, LaunchError.
    """
    record = machines.find(name)
    if life.at_rest(record) != "suspended":
        async with Connected.visiting(life.running(name)) as machine:
            return await life.resume(machine)
    from tinamou.machine.suspending import wake_up

    awake = await wake_up(record)
    change(awake.record, owner_pid=0, owner_started=0)
    return awake.clock


async def suspend(name: str) -> Checkpoint:
    """Save a machine to disk and end it. Raises StateError for one whose state cannot be saved; it runs on then."""
    from tinamou.machine.suspending import suspend as save

    record = life.running(name)
    async with Connected(record, owner=not record.owned) as machine:
        return await save(machine)


async def remove(names: Sequence[str], *, force: bool = False) -> None:
    """Remove machines, with their disks and schedules; none where one of them cannot be. Raises StateError.

    ``force`` cuts the power of those that run, ends what works on them, and removes one whose record is damaged.
    """
    found, errors = [], []
    for name in names:
        try:
            found.append(_removable(name, force=force))
        except TinamouError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        problems = [Problem("name", None, error.what, error.fix) for error in errors]
        raise StateError("these machines cannot be removed", problems=problems)
    for record in found:
        if isinstance(record, Record) and not force:
            async with turn(record, "rm"):
                await in_thread(life.remove, record)
        elif isinstance(record, Record):
            await in_thread(life.remove, record, force=True)
        else:
            await in_thread(clear_unfinished, record)


def _removable(name: str, *, force: bool) -> Record | Path:
    """The machine's record; its folder where the record is damaged and it is to be removed all the same."""
    try:
        record = machines.find(name)
    except StateError:
        folder = machines.machines_dir() / name
        if force and name and "/" not in name and (folder / files.RECORD).exists():
            return folder
        raise
    life.refuse_running(record, force=force)
    if record.template:
        from tinamou.machine.cloning import refuse_base

        refuse_base(record, force=force)
    return record
