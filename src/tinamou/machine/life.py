"""What can be done to a machine by its name, from any process: stop, kill, reset, pause, resume, remove."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.errors import StateError, TinamouError
from tinamou.facts import files
from tinamou.monitor import states
from tinamou.monitor.states import GRACE_SECONDS, at_rest
from tinamou.snapshots.orphans import forget_suspended, is_suspended
from tinamou.state import machines
from tinamou.state.moves import refuse_elsewhere
from tinamou.state.record import Record
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import gone

if TYPE_CHECKING:
    from tinamou.control import Session
    from tinamou.guest.agent import Agent
    from tinamou.guest.clock import Clock
    from tinamou.machine.connected import Connected

__all__ = [
    "GRACE_SECONDS",
    "at_rest",
    "command",
    "discard",
    "kill",
    "refuse_running",
    "remove",
    "reset",
    "resume",
    "running",
    "shut_down",
    "state_of",
    "stop",
    "was_asked_to_end",
]

_PRELAUNCH = "prelaunch"
"""The state of a QEMU whose guest has not run yet."""

ASK_SECONDS = 5.0
"""How long QEMU and the agent are each waited for when they are told that the machine is to end."""


def running(name: str, *, others: bool = False) -> Record:
    """The machine of that name, which must run; with ``others`` also one of root's this user may use. Raises StateError."""
    record = machines.find_usable(name) if others else machines.find(name)
    if is_suspended(record) and not record.owned:
        raise StateError(f"machine {name} is suspended", fix=f"tinamou resume {name}")
    refuse_elsewhere(record, "used")
    if not record.running:
        raise StateError(f"machine {name} is not running", why=record.ended, fix=f"tinamou start {name}")
    return record


async def command(record: Record, name: str) -> object:
    """One QMP command without arguments, on the visitors' monitor. Raises ControlError."""
    from tinamou.control import connect_qmp

    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        return await session.execute(name)


async def resume(machine: Connected) -> Clock:
    """Let a machine run on that stands still, and set its guest's clock; what became of that. Raises ControlError."""
    from tinamou.control.commands import cont, status
    from tinamou.machine.encrypted import refuse_held

    session = await machine.session()
    if machine.record.encrypted and (await status(session)).state == _PRELAUNCH:
        refuse_held(machine.record, "resumed")
    await cont(session)
    return await machine.set_clock()


async def reset(record: Record) -> None:
    """Press the reset button. Raises StateError for a machine that has none, ControlError."""
    from tinamou.machine.encrypted import refuse_reset

    refuse_reset(record)
    await command(record, "system_reset")


async def state_of(record: Record) -> str:
    """``running``, ``paused``, … as QEMU says; without QEMU ``suspended`` or ``stopped``; ``unknown`` without answer."""
    return (await states.state_of(record)).state


async def stop(machine: Connected, *, grace: float = GRACE_SECONDS) -> bool:
    """Shut the guest down, or cut the power after ``grace`` seconds; whether the guest went by itself.

    So it is too where its QEMU cannot even be asked.
    """
    until, session, agent = time.monotonic() + grace, None, machine.agent
    with contextlib.suppress(TinamouError, TimeoutError):
        async with asyncio.timeout(_patience(until)):
            session = await machine.session()
    with contextlib.suppress(TinamouError, TimeoutError):
        async with asyncio.timeout(_patience(until)):
            agent = await machine.settled_agent()
    _ask(machine.record)
    try:
        orderly = await shut_down(machine.record, session, agent, grace=max(0.0, until - time.monotonic()))
        await machine.close()
    except BaseException:
        if not machine.record.running:
            await in_thread(machine.ended)
        raise
    await in_thread(machine.ended)
    return orderly


async def shut_down(record: Record, session: Session | None, agent: Agent, *, grace: float) -> bool:
    """Power button first, the agent as well where there is one; whether QEMU ended within ``grace`` seconds.

    A QEMU or an agent that does not answer is not waited for beyond that.
    """
    from tinamou.control.commands import quit, status

    until = time.monotonic() + grace
    if session is not None:
        with contextlib.suppress(TinamouError):
            if record.encrypted and (await status(session)).state == _PRELAUNCH:
                await quit(session, _patience(until))  # a guest its owner has not let run shall not run for this
                return await gone(record.process, max(0.0, until - time.monotonic()))
            await session.execute("cont", timeout=_patience(until))
            await session.execute("system_powerdown", timeout=_patience(until))
    if record.agent:
        with contextlib.suppress(TinamouError, TimeoutError):
            await asyncio.wait_for(agent.shutdown(), _patience(until))
    return await gone(record.process, max(0.0, until - time.monotonic()))


def _patience(until: float) -> float:
    """Seconds for one question, none of which may use up the time until the power is cut."""
    return max(0.0, min(ASK_SECONDS, until - time.monotonic()))


def kill(record: Record) -> None:
    """Cut the power; the state of a suspended machine is given up, as if its power had been cut then."""
    from tinamou.machine.reconcile import end_machine

    _ask(record)
    end_machine(record)
    forget_suspended(record)


def _ask(record: Record) -> None:
    """Note that the machine is to end, for whoever else sees that it does."""
    with contextlib.suppress(FileNotFoundError):
        record.file(files.ASKED).touch(mode=0o600)


def was_asked_to_end(record: Record) -> bool:
    """Whether a command or program had it end, since it was started."""
    return record.file(files.ASKED).exists()


def discard(record: Record) -> None:
    """End a machine whose making failed, and remove it."""
    from tinamou.machine.reconcile import end_machine

    end_machine(late.replace(record, ephemeral=True))


def refuse_running(record: Record, *, force: bool) -> None:
    """Raises StateError for a machine that runs, unless ``force``."""
    if record.running and not force:
        raise StateError(
            f"machine {record.name} is running", fix=f"tinamou stop {record.name} first, or tinamou rm -f {record.name}"
        )


def remove(record: Record, *, force: bool = False) -> None:
    """Remove the machine, its disks and its schedules. Raises StateError while it runs, unless ``force``."""
    from tinamou.machine.autostart import turn_off
    from tinamou.machine.reconcile import end_machine
    from tinamou.machine.schedules import remove_schedules

    refuse_running(record, force=force)
    end_machine(record)
    remove_schedules(record.name)
    turn_off(record)
    machines.remove(machines.machines_dir() / record.name)
