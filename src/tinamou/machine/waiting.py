"""Waiting for a machine that is being started, and for its guest that still boots; who waits is told for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from tinamou.errors import GuestError, StateError
from tinamou.facts import files
from tinamou.guest.resident.line import LineError
from tinamou.images.progress import Progress, silent
from tinamou.machine import life
from tinamou.snapshots.orphans import is_suspended
from tinamou.state import machines
from tinamou.state.allowed import of_root
from tinamou.state.record import Record, read
from tinamou.system.sockets import NotListeningError
from tinamou.system.spawn import age, gone

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["LOOK_SECONDS", "Waiting"]

T = TypeVar("T")

ANSWER_SECONDS, AT_LEAST_SECONDS = 300.0, 30.0
"""How long a guest may take to answer, from the start of its machine on; and how long it is asked in any case."""

LOOK_SECONDS = 0.1
_SAY_AFTER, _ASK_SECONDS, _END_SECONDS = 1.0, 5.0, 1.0


class Waiting:
    """Somebody's patience with one machine, ``timeout`` seconds; he is told what is waited for.

    Without ``timeout`` it is `ANSWER_SECONDS` from the machine's start on, and `AT_LEAST_SECONDS` in any case.
    """

    def __init__(self, name: str, timeout: float | None = None, progress: Progress = silent) -> None:
        self.name: str = name
        self._timeout = timeout
        self._began = time.monotonic()
        self._deadline = self._began + (ANSWER_SECONDS if timeout is None else timeout)
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

    async def started(self, *, agent: bool = True) -> Record:
        """The machine once its QEMU runs. Raises StateError when it does not, and nobody is starting it.

        Raises GuestError for one whose guest has no ``agent``, where that is what is waited for.
        """
        while True:
            record = machines.find_usable(self.name)
            if self._record is not None and not record.running:
                raise self._ended(record)
            if record.running or not record.owned or is_suspended(record):
                break
            self._say("start", f"waiting until process {record.owner_pid} has started {self.name}")
            if time.monotonic() > self._deadline:
                why = f"process {record.owner_pid} is still starting it"
                raise StateError(f"machine {self.name} does not run yet", why=why, fix="wait longer: --timeout SECONDS")
            await asyncio.sleep(LOOK_SECONDS)
        record = life.running(self.name, others=True)
        if agent and record.spec.get("seed", {}).get("agent") == "none":
            fix = f"tinamou ssh {self.name} -- COMMAND, or tinamou console {self.name}"
            raise GuestError(f"the guest of {self.name} has no agent (seed.agent = none)", fix=fix)
        if self._record is None and self._timeout is None:
            self._deadline = time.monotonic() + max(ANSWER_SECONDS - age(record.process), AT_LEAST_SECONDS)
        self._record = record
        return record

    async def agent(self, record: Record) -> Agent:
        """The agent of a started machine's guest, which has answered; the caller closes it. Raises as `answer`."""
        from tinamou.guest.agent import Agent
        from tinamou.guest.channel import AgentSilentError

        agent = Agent(str(record.file(files.AGENT)))
        try:
            await self.answer(agent.wait(self.left))
        except BaseException as error:
            await agent.close()
            if isinstance(error, AgentSilentError):
                what = f"the guest of {self.name} did not answer within {self._deadline - self._began:.0f} s"
                raise AgentSilentError(
                    what, why=error.why, fix=f"tinamou logs {self.name}; to wait longer: --timeout"
                ) from None
            raise
        return agent

    async def answer(self, work: Coroutine[Any, Any, T]) -> T:
        """What the guest answers. Raises StateError when the machine ends meanwhile, or stands still, else as the work."""
        asked = asyncio.ensure_future(work)
        began = time.monotonic()
        try:
            while not (await asyncio.wait([asked], timeout=LOOK_SECONDS))[0]:
                await self._look(time.monotonic() - began)
            return asked.result()
        except (GuestError, NotListeningError) as error:
            from tinamou.guest.channel import AgentSilentError

            if not isinstance(error, AgentSilentError | LineError | NotListeningError):
                raise
            record = self._now()
            if record is None or await gone(record.process, _END_SECONDS):  # its lines end a moment before it
                raise self._ended(record) from None
            raise
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _look(self, waited: float) -> None:
        """Whether there is something left to be waited for."""
        record = self._now()
        if record is None or not record.running:
            raise self._ended(record)
        if waited > _SAY_AFTER:
            self._say("answer", f"waiting for the guest of {self.name} to answer{_whose(record)}")
            if time.monotonic() > self._asked + _ASK_SECONDS:
                if await life.state_of(record) == "paused":
                    raise StateError(f"machine {self.name} is paused", fix=f"tinamou resume {self.name}")
                self._asked = time.monotonic()

    def _now(self) -> Record | None:
        return read(machines.machines_dir() / self.name) or of_root(self.name)

    def _ended(self, record: Record | None) -> StateError:
        why = record.ended if record is not None else "it was a throw-away machine, or was removed"
        return StateError(f"machine {self.name} ended before its guest answered", why=why)

    def _say(self, about: str, text: str) -> None:
        """Say what is waited for, once."""
        if about not in self._said:
            self._said.add(about)
            self._progress(text, None)


def _whose(record: Record) -> str:
    by = f", and process {record.owner_pid} attends it" if record.owned else ""
    return f"; its machine was started {age(record.process):.0f} s ago{by}"
