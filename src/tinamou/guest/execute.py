"""Running a command in a guest to its end: polling, killing what runs too long, output as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tinamou.errors import GuestError, TimeLimitError
from tinamou.guest.channel import AgentRefusedError, AgentSilentError
from tinamou.guest.command import Completed, not_found

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["AFTERWARDS_SECONDS", "NOT_BEGUN", "kill", "may_run", "poll", "run"]

_FIRST_PAUSE, _LONGEST_PAUSE, _SHARE = 0.001, 0.2, 0.1

NOT_BEGUN = 127
"""The status of a shell that could not begin a command."""

AFTERWARDS_SECONDS = 5.0
"""How long an agent that may not answer any more is asked to tidy up after a command."""


async def run(
    agent: Agent,
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    each: Callable[[], Awaitable[bool]] | None = None,
    called: Sequence[str] = (),
) -> Completed:
    """Start a program as the agent's own, wait for its end, return its status and output. Raises GuestError, TimeLimitError.

    ``env`` replaces the agent's environment. ``each`` as for `poll`; ``called`` is what errors call the command, where it is
    wrapped in another. Whatever is raised, the command does not run on, where the agent can still be asked for that.
    """
    try:
        pid = await agent.start(argv, input=input, env=env)
    except AgentRefusedError as refusal:
        raise _not_started(argv, refusal) from refusal
    try:
        async with asyncio.timeout(timeout):
            return await poll(agent, pid, each)
    except TimeoutError:
        killed = await kill(agent, pid)
        raise TimeLimitError(
            f"The command {' '.join(called or argv)} did not end within {timeout:g} s",
            why="it was killed in the guest" if killed else f"it still runs in the guest as process {pid}",
        ) from None
    except (AgentSilentError, _ForgottenError):
        raise
    except BaseException:
        await asyncio.shield(kill(agent, pid))
        raise


class _ForgottenError(GuestError):
    """The agent does not know the process any more: by now its number may be another one's."""


async def poll(agent: Agent, pid: int, each: Callable[[], Awaitable[bool]] | None = None) -> Completed:
    """Ask until a started command has ended: every millisecond at first, every tenth of its run time later, at most 0.2 s.

    ``each`` runs after every question, the last one included; when it says that something moved, the pause starts small
    again.
    """
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    while True:
        try:
            progress = await agent.progress(pid)
        except AgentRefusedError as refusal:
            raise _ForgottenError(
                f"The guest agent no longer knows the command it started as process {pid}",
                why=f"{refusal.description}: the agent or the guest was restarted, or another program took the answer",
            ) from refusal
        if each is not None and await each():
            quiet_since = loop.time()
        if progress.completed is not None:
            return progress.completed
        quiet = loop.time() - quiet_since
        await asyncio.sleep(min(max(_FIRST_PAUSE, quiet * _SHARE), _LONGEST_PAUSE))


async def kill(agent: Agent, pid: int) -> bool:
    """Kill a process of the guest, with what it started where it leads a group; whether that worked within a few seconds."""
    with contextlib.suppress(AgentRefusedError, AgentSilentError, GuestError, TimeoutError):
        async with asyncio.timeout(AFTERWARDS_SECONDS):
            words = ["/bin/sh", "-c", f"kill -9 -{pid} 2>/dev/null || kill -9 {pid}"]
            killer = await agent.start(["taskkill.exe", "/PID", str(pid), "/T", "/F"] if agent.windows else words)
            ended = await poll(agent, killer)
            await poll(agent, pid)
            return ended.status == 0
    return False


def _forbidden(refusal: AgentRefusedError) -> bool:
    return refusal.error_class == "CommandNotFound" or "disabled" in refusal.description


def _not_started(argv: Sequence[str], refusal: AgentRefusedError) -> GuestError:
    if _forbidden(refusal):
        return GuestError(
            "The guest's agent may not run commands",
            why=refusal.description,
            fix="use ssh, or allow guest-exec in the guest's agent configuration (block-rpcs, allow-rpcs)",
        )
    return not_found(argv[0], refusal.description)


async def may_run(agent: Agent) -> bool:
    """Run the smallest command there is; False when the guest's agent may not run commands. Raises GuestError."""
    try:
        await poll(agent, await agent.start(["true"]))
    except AgentRefusedError as refusal:
        if _forbidden(refusal):
            return False
        if not await agent.is_windows():
            raise
        await poll(agent, await agent.start(["cmd.exe", "/d", "/c", "exit 0"]))
    return True
