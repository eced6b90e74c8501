"""What QEMU tells of its own work: trace events, switched on for as long as a block runs, and read in its log.

Source: docs/devel/tracing.rst of QEMU. One that writes them elsewhere than to its log (ftrace, dtrace) cannot be told apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from tinamou.control import RefusedError, Session, commands
from tinamou.control.commands import TraceEvent
from tinamou.errors import ControlError, Problem, StateError
from tinamou.facts import files
from tinamou.machine.connected import Connected
from tinamou.system.logs import Followed

__all__ = ["ALL", "TraceEvent", "events", "traced"]

ALL = "*"
"""Every event there is."""


async def events(machine: Connected, patterns: Sequence[str] = (ALL,)) -> list[TraceEvent]:
    """The events of its QEMU that the patterns mean (``virtio_blk_*``), in the order of their names.

    Raises StateError for a pattern that means none of those it can be asked for.
    """
    session = await machine.session()
    found = {pattern: await _meant(session, pattern) for pattern in patterns}
    problems = [
        Problem("EVENT", pattern, f"QEMU of {machine.name} has no such event", f"tinamou trace {machine.name} lists them")
        for pattern, meant in found.items()
        if not meant
    ]
    if problems:
        raise StateError("there is nothing to be told", problems=problems)
    return sorted({one.name: one for meant in found.values() for one in meant}.values(), key=lambda one: one.name)


async def _meant(session: Session, pattern: str) -> list[TraceEvent]:
    try:
        return [one for one in await commands.trace_events(session, pattern) if one.available]
    except RefusedError:  # a name without * that is none
        return []


@contextlib.asynccontextmanager
async def traced(machine: Connected, patterns: Sequence[str]) -> AsyncIterator[Followed]:
    """QEMU's log from here on, in which the events are; those that were off before are off again at the end."""
    before = [one.name for one in await events(machine, patterns) if one.on]
    path = machine.record.file(files.QEMU_LOG)
    log = Followed(path, path.stat().st_size if path.exists() else 0)
    try:
        await _switch(machine, patterns, on=True)
        await machine.hang_up()  # others have things to say, too
        yield log
    finally:
        await _as_before(machine, patterns, before)


async def _as_before(machine: Connected, patterns: Sequence[str], before: Sequence[str]) -> None:
    """A QEMU that has ended meanwhile has nothing on any more."""
    try:
        await _switch(machine, patterns, on=False)
        await _switch(machine, before, on=True)
    except ControlError:
        if machine.record.running:
            raise


async def _switch(machine: Connected, patterns: Sequence[str], *, on: bool) -> None:
    for pattern in patterns:
        await commands.trace(await machine.session(), pattern, on=on)
