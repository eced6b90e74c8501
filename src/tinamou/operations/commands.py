"""Commands in the guest of a machine that is known by its name: waiting for it, and the best way into it there is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from tinamou.errors import GuestError, StateError
from tinamou.facts import files
from tinamou.guest.agent import Agent
from tinamou.guest.command import Command, Hear, Input
from tinamou.guest.resident.frames import Size
from tinamou.guest.resident.install import install
from tinamou.guest.resident.line import HeldError, Line, LineError
from tinamou.guest.resident.sharing import shared, shared_path
from tinamou.guest.resident.underway import RunningCommand
from tinamou.images.progress import Progress, silent
from tinamou.machine import life
from tinamou.snapshots.orphans import is_suspended
from tinamou.state import machines
from tinamou.state.allowed import of_others, of_root, refusal
from tinamou.state.record import Record, read
from tinamou.system.sockets import NotListeningError
from tinamou.system.spawn import age

__all__ = ["ANSWER_SECONDS", "open_session", "open_terminal", "stream"]

T = TypeVar("T")

ANSWER_SECONDS, AT_LEAST_SECONDS = 300.0, 30.0
"""How long a guest may take to answer, from the start of its machine on; and how long it is asked in any case."""

_LOOK_SECONDS, _SAY_AFTER, _ASK_SECONDS = 0.1, 1.0, 5.0
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
    way = await _way(_Wait(name, timeout, progress))
    how: dict[str, Any] = {"input": input, "cwd": command.cwd, "user": command.user, "env": command.env}
    try:
        done = await way.stream(command.argv, out, err, timeout=time_limit, **how)
    finally:
        if isinstance(way, Agent):
            await way.close()
        else:
            way.close()
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
    wait = _Wait(name, timeout, progress)
    line = await _terminal_line(wait)
    try:
        session = await wait.answer(line.open(command, size))
        try:
            yield session
        finally:
            session.leave()
    finally:
        line.close()


async def _way(wait: _Wait) -> Line | Agent:
    """A line to the resident, which a guest that brings none is given; where none can be had, the guest's agent.

    Either has answered. What the agent carries is JSON and base64, a hundred times as slow.
    """
    record = await wait.started()
    if record.resident:
        with contextlib.suppress(LineError, NotListeningError):
            return await _greeted(wait)
        record = await wait.started()
    agent = Agent(str(record.file(files.AGENT)))
    try:
        await wait.answer(agent.wait(wait.left))
        line = None if record.resident or of_others(record) else await _brought(wait, agent, record)
    except BaseException:
        await agent.close()
        raise
    if line is not None:
        await agent.close()
    return line or agent


async def _brought(wait: _Wait, agent: Agent, record: Record) -> Line | None:
    """The line to a resident that the guest was given, now or before; None for a guest that cannot run it, as Windows."""
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


async def _greeted(wait: _Wait) -> Line:
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


async def _terminal_line(wait: _Wait) -> Line:
    """A line on which a terminal can be opened. Raises HeldError naming who has the only one, and does not share it."""
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
            await asyncio.sleep(_LOOK_SECONDS)
            record = await wait.started()


class _Wait:
    """Somebody's patience with one machine; he is told what is waited for."""

    def __init__(self, name: str, timeout: float | None, progress: Progress) -> None:
        self.name = name
        self._timeout = timeout
        self._deadline = time.monotonic() + (ANSWER_SECONDS if timeout is None else timeout)
        self._progress = progress
        self._said: set[str] = set()
        self._asked = 0.0
        self._record: Record | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self._deadline - time.monotonic(), 0.1)

    @property
    def over(self) -> bool:
        """Whether none are left."""
        return time.monotonic() >= self._deadline

    async def started(self) -> Record:
        """The machine once its QEMU runs. Raises StateError when it does not, and nobody is starting it."""
        while True:
            record = machines.find_usable(self.name)
            if record.running or not record.owned or is_suspended(record):
                break
            self._say("start", f"waiting until process {record.owner_pid} has started {self.name}")
            if time.monotonic() > self._deadline:
                why = f"process {record.owner_pid} is still starting it"
                raise StateError(f"machine {self.name} does not run yet", why=why, fix="wait longer: --timeout SECONDS")
            await asyncio.sleep(_LOOK_SECONDS)
        record = life.running(self.name, others=True)
        if record.spec.get("seed", {}).get("agent") == "none":
            fix = f"tinamou ssh {self.name} -- COMMAND, or tinamou console {self.name}"
            raise GuestError(f"the guest of {self.name} has no agent (seed.agent = none)", fix=fix)
        if self._record is None and self._timeout is None:
            self._deadline = time.monotonic() + max(ANSWER_SECONDS - age(record.process), AT_LEAST_SECONDS)
        self._record = record
        return record

    async def answer(self, work: Coroutine[Any, Any, T]) -> T:
        """What the guest answers. Raises StateError when the machine ends meanwhile, or stands still, else as the work."""
        asked = asyncio.ensure_future(work)
        began = time.monotonic()
        try:
            while not (await asyncio.wait([asked], timeout=_LOOK_SECONDS))[0]:
                await self._look(time.monotonic() - began)
            return asked.result()
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _look(self, waited: float) -> None:
        """Whether there is something left to be waited for."""
        record = read(machines.machines_dir() / self.name) or of_root(self.name)
        if record is None or not record.running:
            why = record.ended if record is not None else "it was a throw-away machine, or was removed"
            raise StateError(f"machine {self.name} ended before its guest answered", why=why)
        if waited > _SAY_AFTER:
            self._say("answer", f"waiting for the guest of {self.name} to answer{_whose(record)}")
            if time.monotonic() > self._asked + _ASK_SECONDS:
                if await life.state_of(record) == "paused":
                    raise StateError(f"machine {self.name} is paused", fix=f"tinamou resume {self.name}")
                self._asked = time.monotonic()

    def _say(self, about: str, text: str) -> None:
        """Say what is waited for, once."""
        if about not in self._said:
            self._said.add(about)
            self._progress(text, None)


def _whose(record: Record) -> str:
    by = f", and process {record.owner_pid} attends it" if record.owned else ""
    return f"; its machine was started {age(record.process):.0f} s ago{by}"
