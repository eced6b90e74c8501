"""Machines by their names, beneath what tinamou does for them: QEMU's monitor, a debugger, a dump, the screen's address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine import by_hand, debugging, dumping, life, tracing, viewing
from tinamou.machine.by_hand import Said, qmp_line
from tinamou.machine.connected import Connected
from tinamou.machine.dumping import Format
from tinamou.machine.tracing import TraceEvent
from tinamou.machine.viewing import Viewing
from tinamou.system.logs import FULL

__all__ = [
    "Format",
    "Said",
    "TraceEvent",
    "Viewing",
    "debugged",
    "display",
    "dump",
    "let_in",
    "monitor",
    "qmp_line",
    "trace",
    "trace_events",
]

_LOOK_SECONDS = 0.1


async def monitor(name: str, said: Said, *, force: bool = False) -> object:
    """Say something to a running machine's QEMU; its answer. See `tinamou.machine.by_hand.ask`."""
    async with Connected.visiting(life.running(name)) as machine:
        return await by_hand.ask(machine, said, force=force)


@contextlib.asynccontextmanager
async def debugged(name: str) -> AsyncIterator[Path]:
    """A running machine's gdb server, for as long as the block runs; see `tinamou.machine.debugging.debugged`."""
    async with Connected.visiting(life.running(name)) as machine, debugging.debugged(machine) as socket:
        yield socket


async def trace_events(name: str, patterns: Sequence[str]) -> list[TraceEvent]:
    """The events a running machine's QEMU has, all or those the patterns mean; see `tinamou.machine.tracing.events`."""
    async with Connected.visiting(life.running(name)) as machine:
        return await tracing.events(machine, patterns or (tracing.ALL,))


async def trace(name: str, patterns: Sequence[str], hear: Callable[[bytes], None]) -> None:
    """Hear what a running machine's QEMU tells of these events, until it ends or this is cancelled."""
    record = life.running(name)
    async with Connected.visiting(record) as machine, tracing.traced(machine, patterns) as log:
        try:
            while record.running:
                hear(log.more(FULL))
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            hear(log.more(FULL))


async def dump(name: str, file: Path, *, format: Format = "elf", progress: Progress = silent) -> int:
    """Write a running guest's memory and registers into a file; its size. See `tinamou.machine.dumping.dump`."""
    record = life.running(name)
    async with Connected(record, owner=not record.owned) as machine:
        return await dumping.dump(machine, file, format=format, progress=progress)


def display(name: str) -> str:
    """Where a viewer reaches a running machine's screen: ``vnc+unix://PATH``, ``spice+unix://PATH``. Raises StateError."""
    record = life.running(name)
    if not record.screen:
        fix = 'make it with one: tinamou run --display vnc, or display = "vnc" in its file'
        raise StateError(f"{name} has no screen", fix=fix)
    return record.screen


async def let_in(name: str, seconds: int) -> Viewing:
    """Make a password for a running machine's screen; see `tinamou.machine.viewing.let_in`."""
    async with Connected.visiting(life.running(name)) as machine:
        return await viewing.let_in(machine, seconds)
