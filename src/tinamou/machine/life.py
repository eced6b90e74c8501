"""What can be done to a machine by its name, from any process: stop, kill, reset, pause, resume, remove."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tinamou.errors import StateError, TinamouError
from tinamou.machine.connected import Connected
from tinamou.machine.reconcile import end_machine
from tinamou.snapshots.remains import forget_suspended, is_suspended
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.system.spawn import wait_gone

if TYPE_CHECKING:
    from tinamou.control import Session
    from tinamou.guest.agent import Agent

__all__ = [
    "GRACE_SECONDS",
    "at_rest",
    "command",
    "discard",
    "kill",
    "refuse_running",
    "remove",
    "reset",
    "running",
    "shut_down",
    "state_of",
    "stop",
]

GRACE_SECONDS = 30.0


def running(name: str) -> Record:
    """The machine of that name, which must run. Raises StateError."""
    record = machines.find(name)
    if is_suspended(record) and not record.owned:
        raise StateError(f"machine {name} is suspended", fix=f"tinamou resume {name}")
    if not record.running:
        raise StateError(f"machine {name} is not running", why=record.ended, fix=f"tinamou start {name}")
    return record


async def command(record: Record, name: str) -> object:
    """One QMP command without arguments, on the visitors' monitor. Raises ControlError."""
    from tinamou.control import connect_qmp

    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        return await session.execute(name)


async def reset(record: Record) -> None:
    """Press the reset button. Raises StateError for a machine that has none, ControlError."""
    from tinamou.machine.encrypted import refuse_reset

    refuse_reset(record)
    await command(record, "system_reset")


async def state_of(record: Record) -> str:
    """``running``, ``paused``, … as QEMU says; without QEMU ``suspended`` or ``stopped``; ``unknown`` without answer."""
    if not record.running:
        return at_rest(record)
    try:
        answer = await command(record, "query-status")
    except TinamouError:
        return "unknown" if record.running else at_rest(record)
    return str(answer["status"]) if isinstance(answer, dict) else "unknown"


def at_rest(record: Record) -> str:
    """``suspended`` or ``stopped``: what a machine is that does not run."""
    return "suspended" if is_suspended(record) else "stopped"


async def stop(machine: Connected, *, grace: float = GRACE_SECONDS) -> bool:
    """Shut the guest down, or cut the power after ``grace`` seconds; whether the guest went by itself."""
    import asyncio

    session = await machine.session()
    orderly = await shut_down(machine.record, session, await machine.settled_agent(), grace=grace)
    await machine.close()
    await asyncio.to_thread(machine.ended)
    return orderly


async def shut_down(record: Record, session: Session, agent: Agent, *, grace: float) -> bool:
    """Power button first, the agent as well where there is one; whether QEMU ended within ``grace`` seconds."""
    import asyncio

    try:
        await session.execute("cont")
        await session.execute("system_powerdown")
        if record.agent:
            await asyncio.wait_for(agent.shutdown(), min(grace, 5.0))
    except (TinamouError, TimeoutError):
        pass
    return await asyncio.to_thread(wait_gone, record.process, grace)


def kill(record: Record) -> None:
    """Cut the power; the state of a suspended machine is given up, as if its power had been cut then."""
    end_machine(record)
    forget_suspended(record)


def discard(record: Record) -> None:
    """End a machine whose making failed, and remove it."""
    end_machine(dataclasses.replace(record, ephemeral=True))


def refuse_running(record: Record, *, force: bool) -> None:
    """Raises StateError for a machine that runs, unless ``force``."""
    if record.running and not force:
        raise StateError(
            f"machine {record.name} is running", fix=f"tinamou stop {record.name} first, or tinamou rm -f {record.name}"
        )


def remove(record: Record, *, force: bool = False) -> None:
    """Remove the machine, its disks and its schedules. Raises StateError while it runs, unless ``force``."""
    from tinamou.machine.schedules import remove_schedules

    refuse_running(record, force=force)
    end_machine(record)
    remove_schedules(record.name)
    machines.remove(machines.machines_dir() / record.name)
