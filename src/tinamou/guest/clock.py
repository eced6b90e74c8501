"""A guest's clock, set right when its machine runs on: by the program that answers first, or by the agent.

A machine that stands still has a clock that does so too. What sets it is this host's time, within the time an answer takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from tinamou.control import Session
from tinamou.control.commands import open_ports
from tinamou.errors import GuestError, TinamouError
from tinamou.facts import files
from tinamou.guest.agent import Agent
from tinamou.guest.resident import Line, connect, shared
from tinamou.guest.resident.sharing import shared_path
from tinamou.late import dataclass
from tinamou.state.record import Record

__all__ = ["RIGHT", "Clock", "ahead_of", "not_set", "own_time", "set_clock"]

SECONDS = 10.0
"""How long a guest may take to set its clock."""
_GREET_SECONDS = 4.0
_BRIEFLY = 0.75
"""Seconds for which a line may be one process's alone: whoever else wants it tries that long before it gives up."""
RIGHT = 1.0
"""Seconds a clock may be off that is called right."""
_LATE, _TRIES = 0.5, 3
_RTC = re.compile(r"\bbase=\d|\bclock=(vm|rt)\b")


@dataclass(frozen=True)
class Clock:
    """What became of a guest's clock when its machine ran on.

    ``by`` is what set it, ``resident`` or ``agent``: to this host's time, less at most ``within`` seconds, which are those
    until it answered. It is empty where nothing did, as ``why`` says.
    """

    name: str
    by: str = ""
    within: float = 0.0
    why: str = ""

    @property
    def note(self) -> str:
        """What must be said of it, in one line; empty where it is right."""
        if not self.by:
            return f"the clock of {self.name} is behind by the time it stood still: {self.why}; set it in the guest"
        if self.within > RIGHT:
            return f"the clock of {self.name} may be {self.within:.1f} s behind: so long its {self.by} took to answer"
        return ""


def own_time(spec: Mapping[str, Any]) -> str:
    """By what a machine of that description has a time of its own, that is not this host's; empty where by nothing."""
    if spec.get("clock", {}).get("base", "auto")[:1].isdigit():
        return "clock.base"
    return "-rtc in qemu_args" if _RTC.search(" ".join(map(str, spec.get("qemu_args", ())))) else ""


def ahead_of(spec: Mapping[str, Any]) -> int | None:
    """Seconds that the clock of a machine of that description is ahead of this host's; None where its time is its own."""
    return None if own_time(spec) else int(spec.get("clock", {}).get("offset", 0))


def not_set(record: Record) -> Clock:
    """The clock of a guest that has nothing to set it by."""
    return Clock(record.name, why=f"nothing is known of an agent in {record.image or 'its image'}")


async def set_clock(
    record: Record,
    session: Session | None = None,
    *,
    line: Line | None = None,
    agent: Agent | None = None,
    briefly: bool = False,
) -> Clock:
    """Set the clock of a guest whose machine runs on just now, to this host's time and the offset it is described with.

    Raises nothing that is not said in the result.

    ``session`` is asked whether anybody in the guest listens, so that nobody is waited for in vain; ``line`` and ``agent``
    are used where they are open already. With ``briefly`` the line is this process's alone for that first: no other one is
    started that shares it, as the guest has better use for the processor.
    """
    if not record.agent and line is None:
        return not_set(record)
    if by := own_time(record.spec):
        return Clock(record.name, why=f"its time is its own, by {by}")
    try:
        async with asyncio.timeout(SECONDS):
            ways = await _ways(record, session, line)
            if "resident" in ways:
                with contextlib.suppress(TinamouError, OSError):
                    return Clock(record.name, "resident", await _by_line(record, line, briefly=briefly))
            if "agent" not in ways:
                return Clock(record.name, why="no agent listens in its guest")
            return Clock(record.name, "agent", await _by_agent(record, agent))
    except TimeoutError:
        return Clock(record.name, why=f"nobody in its guest answered within {SECONDS:g} s")
    except (TinamouError, OSError) as error:
        return Clock(record.name, why=str(error).partition("\n")[0])


async def _ways(record: Record, session: Session | None, line: Line | None) -> set[str]:
    """Who may listen in the guest."""
    if session is None or session.closed:
        found = {"agent", *(("resident",) if record.resident else ())}
    else:
        found = await open_ports(session) & {"agent", "resident"}
    return found if line is None else {*found, "resident"}


async def _by_line(record: Record, line: Line | None, *, briefly: bool) -> float:
    """Seconds until it was done. Raises LineError, GuestError, NotListeningError, OSError."""
    if briefly and line is None:
        with contextlib.suppress(TinamouError, OSError, TimeoutError):  # held by somebody, or the guest is slow
            async with asyncio.timeout(_BRIEFLY):
                with contextlib.closing(Line(str(record.file(files.RESIDENT)))) as own:
                    return await _told(own, record)
    held = line or _reached(record)
    try:
        return await _told(held, record)
    finally:
        if line is None:
            held.close()


async def _told(line: Line, record: Record) -> float:
    await line.hello(_GREET_SECONDS)
    return await line.set_clock(ahead=ahead_of(record.spec) or 0)


def _reached(record: Record) -> Line:
    path = str(record.file(files.RESIDENT))
    if record.owner_pid == os.getpid():
        return connect(path)
    return Line.to(shared_path(path)) if record.owned and record.resident else shared(path)


async def _by_agent(record: Record, agent: Agent | None) -> float:
    """Seconds until it was done, of the quickest try. Raises GuestError."""
    held, ahead = agent or Agent(str(record.file(files.AGENT))), ahead_of(record.spec) or 0
    try:
        await held.ping(SECONDS)  # it may have to be started first, or be busy with somebody else
        within = SECONDS
        for _ in range(_TRIES):
            began = time.monotonic()
            try:
                await held.set_time(time.time() + ahead)
            except GuestError as refused:
                await _seen_or_set(held, ahead, refused)
            within = time.monotonic() - began
            if within < _LATE:
                break
        return within
    finally:
        if agent is None:
            await held.close()


async def _seen_or_set(agent: Agent, ahead: int, refused: GuestError) -> None:
    """An agent that cannot set the hardware clock refuses, and has set the other one (source: qga, guest-set-time)."""
    said = await agent.run(["date", "-u", "+%s"], bare=True)
    if not said.status and said.text.isdigit() and abs(int(said.text) - time.time() - ahead) <= RIGHT:
        return
    done = await agent.run(["date", "-u", "-s", f"@{time.time() + ahead:.0f}"], bare=True)
    if done.status:
        raise GuestError("its agent refused to set it", why=done.stderr.decode(errors="replace").strip()) from refused
