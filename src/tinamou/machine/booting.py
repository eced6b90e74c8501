"""Between QEMU's start and the caller's first word, the same for every door: threads pinned, guest awake, folders shared."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from tinamou.blueprint import Plan
from tinamou.errors import ControlError
from tinamou.guest.ready import launched
from tinamou.images.progress import Progress, silent
from tinamou.launch.process import died
from tinamou.machine import encrypted, life
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.reconcile import end_machine
from tinamou.machine.starting import Started, begin, begin_again
from tinamou.spec import MachineSpec
from tinamou.state.record import Record
from tinamou.system.loop_thread import ended, in_thread

if TYPE_CHECKING:
    from tinamou.guest.ready import ReadyReport

__all__ = ["begun", "begun_again", "reset", "settle", "started", "until_launched", "until_up"]

START_SECONDS = 300.0
"""How long QEMU may take until it answers: guest memory on huge pages is filled first, a terabyte takes minutes."""


async def begun(
    spec: MachineSpec, *, ephemeral: bool, dies_with_parent: bool = True, progress: Progress = silent
) -> Started:
    """As `starting.begin`, beside the event loop; cancelled, it removes the machine first."""
    asked = threading.Event()

    def heard(text: str, fraction: float | None) -> None:
        if asked.is_set():
            raise asyncio.CancelledError
        progress(text, fraction)

    begin_it = functools.partial(begin, spec, ephemeral=ephemeral, dies_with_parent=dies_with_parent, progress=heard)
    return await _unless_cancelled(asked, begin_it, life.discard)


async def begun_again(record: Record, *, dies_with_parent: bool = False) -> Started:
    """As `starting.begin_again`, beside the event loop; cancelled, it ends the machine first."""
    again = functools.partial(begin_again, record, dies_with_parent=dies_with_parent)
    return await _unless_cancelled(threading.Event(), again, end_machine)


async def _unless_cancelled(
    asked: threading.Event, start: Callable[[], Started], undo: Callable[[Record], object]
) -> Started:
    """What ``start`` returns. A thread cannot be cancelled: ``asked`` is set, and what it started all the same is undone."""
    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        asked.set()
        await ended(starting)
        if not starting.cancelled() and starting.exception() is None:
            await in_thread(undo, starting.result().record)
        raise


@contextlib.asynccontextmanager
async def started(
    spec: MachineSpec, *, timeout: float = READY_SECONDS, progress: Progress = silent
) -> AsyncIterator[Connected]:
    """A throw-away machine whose QEMU has been started for this block. Raises what starting it raises."""
    since = time.monotonic()
    new = await begun(spec, ephemeral=True, progress=progress)
    machine = Connected(new.record, new.plan, timeout=timeout, since=since)
    try:
        yield machine
    finally:
        await machine.end()


async def until_up(machine: Connected, *, answer: bool = True) -> ReadyReport:
    """Wait until the guest answers and is as described. Raises GuestError saying how far it got, LaunchError, ControlError.

    Raises StateError for one that waits for its owner.

    With ``answer`` the first answer is enough; without, a command must have run.
    """
    encrypted.refuse_held(machine.record, "waited for")
    await settle(machine.record, machine.plan)
    report = await machine.answers(answer=answer)
    if machine.record.has("share"):
        from tinamou.machine import shares

        await shares.attach(machine)
    return report


async def reset(machine: Connected) -> ReadyReport:
    """Press the reset button, and wait as `until_up` does. Raises StateError where memory is encrypted."""
    encrypted.refuse_reset(machine.record)
    machine.drop_line()
    await (await machine.session()).execute("system_reset")
    return await until_up(machine)


async def until_launched(machine: Connected) -> ReadyReport:
    """Wait until QEMU runs and has all it was to have; the guest is left to itself. Raises LaunchError, ControlError.

    Shared folders are there to be mounted.
    """
    await settle(machine.record, machine.plan)
    await machine.session()
    if machine.record.has("share"):
        from tinamou.machine import shares

        await shares.plug(machine)
    return launched(machine.since)


async def settle(record: Record, plan: Plan) -> None:
    """Give a QEMU that has just been started what no command line can: its threads their CPUs, its screen its port.

    Raises LaunchError, ControlError.
    """
    try:
        if plan.pinning is not None:
            from tinamou.machine.pinning import pin_threads

            await pin_threads(record, plan.pinning, patience=START_SECONDS)
        if any(flag.name == "vnc" for flag in plan.flags):
            from tinamou.machine import viewing

            if viewing.has_port(plan):
                await viewing.listen(record, patience=START_SECONDS)
    except ControlError as error:
        if record.running:
            raise
        raise died(plan, record.path, record.pid) from error
