"""A command in a guest whose output is heard while it runs, however much it is: through two files in the guest."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest import execute, files
from tinamou.guest.answers import said
from tinamou.guest.channel import AgentRefusedError

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent, Completed

__all__ = ["Hear", "NoShellError", "run"]

Hear = Callable[[bytes], None]

_WRAPPED = 'umask 077; mkdir "$0" && exec >"$0/out" 2>"$0/err" && exec "$@"'
_WRAPPED_WITH_INPUT = 'umask 077; exec <"$0/in" >"$0/out" 2>"$0/err" && exec "$@"'
_LARGE_INPUT = 1 << 20


class NoShellError(GuestError):
    """The guest has no /bin/sh, which is needed to hear a command's output while it runs."""


async def run(
    agent: Agent,
    argv: Sequence[str],
    out: Hear,
    err: Hear,
    *,
    input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a command and hand its output to ``out`` and ``err`` as it comes; returns its status, with empty output.

    The guest needs a shell (else NoShellError), and room in /tmp for all the output and a large input. Otherwise as
    `Agent.run`; a command that does not exist ends with status 127, as in a shell.
    """
    if not argv:
        raise GuestError("There is no command to run", fix="name one: tinamou exec NAME -- COMMAND")
    folder = f"/tmp/tinamou-{secrets.token_hex(8)}"  # noqa: S108 (in the guest, made by mkdir with umask 077)
    followed = [_Followed(agent, f"{folder}/out", out), _Followed(agent, f"{folder}/err", err)]

    async def each() -> bool:
        return any([await one.read() for one in followed])

    try:
        wrapped, input = await _prepared(agent, folder, input)
        done = await execute.run(
            agent,
            [*wrapped, folder, *argv],
            input=input,
            environment=environment,
            timeout=timeout,
            each=each,
            called=argv,
        )
        if done.stderr and not any(one.opened for one in followed):
            raise GuestError("The guest has no room for the command's output", why=done.stderr.decode(errors="replace"))
        return done
    except GuestError as error:
        if isinstance(error.__cause__, AgentRefusedError) and error.what.endswith("start /bin/sh"):
            raise NoShellError(error.what, why=error.why, fix="let the agent keep the output instead") from error
        raise
    finally:
        await _clean(agent, folder, followed)


async def _prepared(agent: Agent, folder: str, input: bytes | None) -> tuple[list[str], bytes | None]:
    """How to run the command, and the input to send along: a large one goes ahead, in pieces, into a file."""
    if input is None or len(input) < _LARGE_INPUT:
        return ["/bin/sh", "-c", _WRAPPED], input
    made = await execute.run(agent, ["/bin/sh", "-c", 'umask 077; mkdir "$0"', folder])
    if made.status:
        raise GuestError("The guest has no room for the command's input", why=made.stderr.decode(errors="replace"))
    pieces = (input[start : start + files.PIECE] for start in range(0, len(input), files.PIECE))
    await files.write(agent, f"{folder}/in", pieces)
    return ["/bin/sh", "-c", _WRAPPED_WITH_INPUT], None


async def _clean(agent: Agent, folder: str, followed: list[_Followed]) -> None:
    """Remove the output; where the agent does not answer any more, it goes with the guest's /tmp."""
    import asyncio

    with contextlib.suppress(GuestError, TimeoutError):
        async with asyncio.timeout(execute.AFTERWARDS_SECONDS):
            for one in followed:
                await one.close()
            await execute.poll(agent, await agent.start(["/bin/rm", "-rf", folder]))


class _Followed:
    """A growing file of the guest, read to its present end at every call."""

    def __init__(self, agent: Agent, path: str, hear: Hear) -> None:
        self._agent = agent
        self._path = path
        self._hear = hear
        self._handle: int | None = None

    @property
    def opened(self) -> bool:
        return self._handle is not None

    async def read(self) -> bool:
        """Hand on what is new; whether there was anything."""
        if self._handle is None and not await self._open():
            return False
        moved = False
        while True:
            answer = said.record(
                await self._agent.command("guest-file-read", {"handle": self._handle, "count": files.PIECE})
            )
            if not said.number(answer, "count"):
                return moved
            self._hear(said.data(answer, "buf-b64", most=files.PIECE))
            moved = True

    async def _open(self) -> bool:
        try:
            handle = await self._agent.command("guest-file-open", {"path": self._path, "mode": "r"})
        except AgentRefusedError:
            return False
        self._handle = handle if isinstance(handle, int) else None
        return self.opened

    async def close(self) -> None:
        if self._handle is not None:
            await self._agent.command("guest-file-close", {"handle": self._handle})
