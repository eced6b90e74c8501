"""One look at a machine: its QEMU is asked, its guest's agent greeted, its files are read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from tinamou.control import Session, connect_qmp
from tinamou.control.commands import status
from tinamou.errors import ControlError, GuestError
from tinamou.facts import files
from tinamou.guest.diagnose import clean
from tinamou.late import dataclass
from tinamou.monitor import console, guest_memory, processes
from tinamou.monitor.disks import disks_of
from tinamou.monitor.observation import DiskObservation, GuestMemory, Observation
from tinamou.monitor.states import LOOK_SECONDS, reason
from tinamou.snapshots.check import last_results
from tinamou.spec import load_spec
from tinamou.state.record import Record
from tinamou.system.logs import Followed, older
from tinamou.system.rooted import Rooted
from tinamou.system.spawn import wait_gone
from tinamou.system.turns import Turn
from tinamou.units import Size

__all__ = ["Patience", "leave", "look", "memory_of", "printed", "visit_to", "within"]

T = TypeVar("T")

_STOPPED = ("io-error",)
_TAIL = 64 << 10
_ENDING_SECONDS, _STARTING_SECONDS = 2.0, 300.0
"""How long QEMU may take to be gone once it has closed its monitor, and to open it: much memory is filled first."""
_SAID_SECONDS = 3.0
"""How long a guest's last words may take from QEMU's monitor to the log."""


@dataclass(frozen=True)
class Patience:
    """Seconds: how often QEMU asks the guest for its memory, how long its first answer and the agent's are waited for."""

    every: int = 2
    first: float = 5.0
    agent: float = 15.0


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What QEMU answers within so many seconds. Raises ControlError."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise ControlError(reason(error)) from None


def visit_to(record: Record, lent: Session | None = None) -> guest_memory.Visit:
    """Sessions of a few commands with a machine, on the monitor for visitors, or each time the one that is ``lent``."""

    async def visit() -> AbstractAsyncContextManager[Session]:
        if lent is not None:
            return contextlib.nullcontext(lent)
        return await connect_qmp(record.directory, alive=lambda: record.running)

    return visit


async def leave(records: Iterable[Record], seconds: float = 3.0) -> None:
    """Nobody looks at these machines any more: their guests are asked nothing. One that does not answer is left as it is."""

    async def one(record: Record) -> None:
        with contextlib.suppress(ControlError, TimeoutError):
            await asyncio.wait_for(guest_memory.stop_asking(visit_to(record)), seconds)

    await asyncio.gather(*(one(record) for record in records if record.running))


async def look(
    record: Record,
    patience: Patience,
    *,
    files: Rooted | None = None,
    errors: Sequence[str] = (),
    share: bool = False,
    lent: Session | None = None,
) -> Observation:
    """What can be seen of a machine now.

    ``errors`` are the failed requests of disks that QEMU told of lately; ``share`` asks for its QEMU's PSS too. QEMU is
    asked by the session that is ``lent``, where one is, and for as long as that lasts.
    """
    files, plain = files or Rooted(), await _resting(record)
    if not record.running:
        return plain
    visit, spec = visit_to(record, lent), load_spec(record.spec).memory
    try:
        state, disks = await within(LOOK_SECONDS, _devices(record, visit, bool(errors)))
        memory = await _memory(visit, spec.size, patience, running=state == "running")
    except ControlError as error:
        if lent is not None and lent.closed:  # somebody wanted its monitor
            return await look(record, patience, files=files, errors=errors, share=share)
        if await _ends_or_starts(record, files):
            return plain
        state, disks, memory, silent = "", (), None, reason(error)
    else:
        silent = ""
    answers, unasked = await _answers(record, visit_to(record), state, patience.agent)
    if not record.running:
        return plain
    return Observation(
        record.name,
        state=state,
        silent=silent,
        floor=spec.floor,
        memory=memory,
        held=await asyncio.to_thread(processes.held, files, record.pid, share=share),
        disks=disks,
        console=await _console(record, state),
        uptime=processes.uptime(files, record.pid),
        answers=answers,
        unasked=unasked,
        errors=tuple(errors),
        checked=plain.checked,
        check_age=plain.check_age,
    )


async def _console(record: Record, state: str) -> str:
    """What the guest printed; where QEMU says that it panicked, the panic with it, which is on its way through a pipe."""
    log, deadline = record.file(files.SERIAL_LOG), time.monotonic() + _SAID_SECONDS
    while not console.panic(text := printed(log, record.log_from)) and state == "guest-panicked":
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.02)
    return text


def printed(log: Path, start: int) -> str:
    """The end of a console's log from its byte ``start`` on, without what an earlier boot printed."""
    begun_anew = older(log).exists()  # since the machine was started: then all of it is from this boot
    return console.last_boot(clean(Followed(log, 0 if begun_anew else start).more(_TAIL)))


async def _ends_or_starts(record: Record, files: Rooted) -> bool:
    """Whether it is no wonder that QEMU does not answer: it is about to be gone, or somebody is just starting it."""
    if await asyncio.to_thread(wait_gone, record.process, _ENDING_SECONDS):
        return True
    return record.owned and processes.uptime(files, record.pid) < _STARTING_SECONDS


async def _resting(record: Record) -> Observation:
    """What can be told of a machine without its QEMU."""
    checked = await asyncio.to_thread(last_results, Path(record.directory))
    age = time.time() - checked["at"] if checked else 0.0
    return Observation(record.name, ended=record.ended, checked=checked, check_age=age)


async def _devices(record: Record, visit: guest_memory.Visit, failed: bool) -> tuple[str, tuple[DiskObservation, ...]]:
    async with await visit() as session:
        state = (await status(session)).state
        return state, await disks_of(session, Path(record.directory), stopped=failed or state in _STOPPED)


async def memory_of(record: Record, visit: guest_memory.Visit, patience: Patience, *, running: bool) -> GuestMemory:
    """What its guest says of its memory. Raises ControlError."""
    return await _memory(visit, load_spec(record.spec).memory.size, patience, running=running)


async def _memory(visit: guest_memory.Visit, size: Size, patience: Patience, *, running: bool) -> GuestMemory:
    asked = guest_memory.ask(visit, size, running=running, wait=patience.first, every=patience.every)
    return await within(patience.first + LOOK_SECONDS, asked)


async def _answers(record: Record, visit: guest_memory.Visit, state: str, seconds: float) -> tuple[bool | None, str]:
    """Whether the guest's agent answers, and why that says nothing where it does not."""
    from tinamou.guest.agent import Agent

    if state != "running":
        return None, _stands(state)
    if not record.agent:
        return None, f"nothing is known of a guest agent in {record.image}"
    path = str(record.file(files.AGENT))
    try:
        async with Agent(path) as agent:
            await agent.ping(seconds)
    except GuestError:
        if holder := Turn(f"{path}.lock").holder():
            return None, f"process {holder} uses the line to its agent"
        if record.owned:
            return None, f"process {record.owner_pid} attends it, and waits for it to boot"
        now = await _state_now(visit)
        return (False, "") if now == "running" else (None, _stands(now))
    return True, ""


def _stands(state: str) -> str:
    return f"the guest does not run ({state or 'QEMU does not say'})"


async def _state_now(visit: guest_memory.Visit) -> str:
    """Asked again, since the machine may have been stopped, saved or ended while its agent was waited for."""

    async def ask() -> str:
        async with await visit() as session:
            return (await status(session)).state

    try:
        return await within(LOOK_SECONDS, ask())
    except ControlError:
        return ""
