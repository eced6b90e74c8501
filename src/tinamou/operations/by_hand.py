"""Machines by their names, beneath what tinamou does for them: QEMU's monitor, a debugger, a dump, the screen's address."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine import by_hand, debugging, dumping, life, viewing
from tinamou.machine.by_hand import Said, qmp_line
from tinamou.machine.connected import Connected
from tinamou.machine.dumping import Format
from tinamou.machine.viewing import Viewing

__all__ = ["Format", "Said", "Viewing", "debugged", "display", "dump", "let_in", "monitor", "qmp_line"]


async def monitor(name: str, said: Said, *, force: bool = False) -> object:
    """Say something to a running machine's QEMU; its answer. See `tinamou.machine.by_hand.ask`."""
    async with Connected.visiting(life.running(name)) as machine:
        return await by_hand.ask(machine, said, force=force)


@contextlib.asynccontextmanager
async def debugged(name: str) -> AsyncIterator[Path]:
    """A running machine's gdb server, for as long as the block runs; see `tinamou.machine.debugging.debugged`."""
    async with Connected.visiting(life.running(name)) as machine, debugging.debugged(machine) as socket:
        yield socket


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
