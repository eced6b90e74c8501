"""Commands in the guest of a machine that is known by its name: waiting for it, and the best way into it there is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from tinamou.errors import GuestError
from tinamou.facts import files
from tinamou.guest.resident.line import HeldError, Line, LineError
from tinamou.guest.resident.sharing import shared, shared_path
from tinamou.images.progress import Progress, silent
from tinamou.machine.waiting import LOOK_SECONDS, Waiting
from tinamou.state.allowed import of_others, refusal
from tinamou.system.closing import IfFailed
from tinamou.system.sockets import NotListeningError

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent
    from tinamou.guest.command import Command, Hear, Input
    from tinamou.guest.resident.frames import Size
    from tinamou.guest.resident.underway import RunningCommand
    from tinamou.state.record import Record

__all__ = ["open_session", "open_terminal", "stream"]

_TRIES = 3
_RELEASE_SECONDS = 5.0
"""How long a command that has started a machine may take to leave it, once its guest answers."""


async def stream(
    name: str,
    command: Command,
    out: Hear,
    err: Hear,
    *,
    input: Input = None,
    timeout: float | None = None,
    time_limit: float | None = None,
    progress: Progress = silent,
) -> int:
    """Run a command in a machine, its output heard while it runs; returns its exit status as a shell has it.

    A machine that is being started, and a guest that does not answer yet, are waited for, up to ``timeout`` seconds; the
    command is killed after ``time_limit`` seconds. Raises StateError, GuestError, SpecError.
    """
    way = await _way(Waiting(name, timeout, progress))
    how: dict[str, Any] = {"input": input, "cwd": command.cwd, "user": command.user, "env": command.env}
    try:
        done = await way.stream(command.argv, out, err, timeout=time_limit, **how)
    finally:
        if isinstance(way, Line):
            way.close()
        else:
            await way.close()
    return done.exit_status


@contextlib.asynccontextmanager
async def open_terminal(
    name: str, command: Command, size: Size, *, timeout: float | None = None, progress: Progress = silent
) -> AsyncIterator[RunningCommand]:
    """A command at a terminal of its own in a machine, for as long as the block lasts; waits as `stream` does.

    A guest that does not bring the program that makes terminals is given it. Raises StateError, GuestError, SpecError.
    """
    async with open_session(name, command, size, timeout=timeout, progress=progress) as session:
        yield session


@contextlib.asynccontextmanager
async def open_session(
    name: str, command: Command, size: Size | None, *, timeout: float | None = None, progress: Progress = silent
) -> AsyncIterator[RunningCommand]:
    """As `open_terminal`, without a terminal where ``size`` is None: who has the block reads its output."""
    wait = Waiting(name, timeout, progress)
    with contextlib.closing(await _terminal_line(wait)) as line:
        session = await wait.answer(line.open(command, size))
        try:
            yield session
        finally:
            session.leave()


async def _way(wait: Waiting) -> Line | Agent:
    """A line to the resident, which a guest that brings none is given; where none can be had, the guest's agent.

    Either has answered. What the agent carries is JSON and base64, a hundred times as slow.
    """
    record = await wait.started()
    if record.resident:
        with contextlib.suppress(LineError, NotListeningError):
            return await _greeted(wait)
        record = await wait.started()
    agent = await wait.agent(record)
    async with IfFailed(agent.close):
        line = None if record.resident or of_others(record) else await _brought(wait, agent, record)
    if line is not None:
        await agent.close()
    return line or agent


async def _brought(wait: Waiting, agent: Agent, record: Record) -> Line | None:
    """The line to a resident that the guest was given, now or before; None for a guest that cannot run it, as Windows."""
    from tinamou.guest.resident.install import install

    try:
        if await wait.answer(agent.is_windows()):
            return None
        return await wait.answer(install(agent, str(record.file(files.RESIDENT)), record.arch, shared))
    except (GuestError, NotListeningError):
        return None


def _line(record: Record) -> Line:
    """A line to the resident that others can use too. Raises HeldError, NotListeningError where it cannot be had now.

    Whoever owns a machine whose image brings the resident speaks to it himself, or is about to.
    """
    path = str(record.file(files.RESIDENT))
    return Line.to(shared_path(path)) if record.owned and record.resident else shared(path)


async def _greeted(wait: Waiting) -> Line:
    """A line that has been answered. Raises as `_line`, LineError."""
    for _ in range(_TRIES):  # who shares it may just be ending
        line = _line(await wait.started())
        try:
            await wait.answer(line.hello(wait.left))
            return line
        except LineError as error:
            line.close()
            failed = error
            if line.met or wait.over:
                break
        except BaseException:
            line.close()
            raise
    raise failed


async def _terminal_line(wait: Waiting) -> Line:
    """A line on which a terminal can be opened. Raises HeldError naming who has the only one, and does not share it."""
    from tinamou.guest.agent import Agent
    from tinamou.guest.resident.install import install

    record = await wait.started()
    if of_others(record):
        raise refusal(record)
    async with Agent(str(record.file(files.AGENT))) as agent:
        patience = 0.0
        while True:
            try:
                if record.resident:
                    return await _greeted(wait)
                await wait.answer(agent.wait(wait.left))
                path = str(record.file(files.RESIDENT))
                return await wait.answer(install(agent, path, record.arch, shared))
            except (HeldError, NotListeningError):
                await wait.answer(agent.wait(wait.left))
                patience = patience or time.monotonic() + _RELEASE_SECONDS
                if time.monotonic() > patience:
                    raise HeldError(record.owner_pid) from None
            await asyncio.sleep(LOOK_SECONDS)
            record = await wait.started()
