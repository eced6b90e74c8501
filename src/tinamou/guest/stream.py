"""A command in a guest by its agent: to its end with its output kept, or heard while it runs, through files in the guest."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest import execute, files
from tinamou.guest.answers import said
from tinamou.guest.channel import AgentRefusedError
from tinamou.guest.command import Command, Completed, Hear, Input, completed, kept, pieces
from tinamou.guest.login import NoShellError, login

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["Hear", "NoShellError", "capture", "run"]

_LARGE_INPUT = 1 << 20

_MAKE = 'umask 077; mkdir "$0" && : >"$0/in" && mkfifo "$0/pipe"'
_FEED = """
{ while cat && ! [ -e "$0/all" ] && [ -d "$0" ]; do sleep 0.1 || sleep 1; done; cat; } <"$0/in" >"$0/pipe" 2>/dev/null &
exec <"$0/pipe"
"""
_WRAPPED = """
before=$(umask); umask 077
[ -d "$0" ] || mkdir "$0" && exec >"$0/out" 2>"$0/err" 3>"$0/failed" && umask "$before" && exec "$@"
"""
"""The output goes to files, and so does what a shell of `login` says; the input comes from a file that may grow until there
is one called all."""


async def capture(agent: Agent, command: Command, *, input: Input = None, timeout: float | None = None) -> Completed:
    """Run a command to its end and keep its output, up to the bound of `Completed`. Raises GuestError."""
    if agent.windows:
        return await _shellless(agent, command, input, timeout)
    if input is not None and (not isinstance(input, bytes) or len(input) >= _LARGE_INPUT):
        out, err = bytearray(), bytearray()
        done = await run(agent, command, kept(out), kept(err), input=input, timeout=timeout)
        return completed(done.status, out, err)
    try:
        how = await login(agent, command, aloud=True)
    except NoShellError:
        return await _shellless(agent, command, input, timeout)
    done = await execute.run(agent, how.words, input=input, env=how.env, timeout=timeout, called=command.argv)
    if error := how.failed(command, done.stderr):
        raise error
    return done


async def run(
    agent: Agent, command: Command, out: Hear, err: Hear, *, input: Input = None, timeout: float | None = None
) -> Completed:
    """Run a command and hand its output to ``out`` and ``err`` as it comes; returns its status, with empty output.

    The guest needs room in /tmp for all the output and a large input. One without a shell gives the output at the end, as
    much as its agent keeps. Raises GuestError.
    """
    try:
        how = await login(agent, command, aloud=False)
    except NoShellError:
        done = await _shellless(agent, command, input, timeout)
        out(done.stdout)
        err(done.stderr)
        if done.truncated:
            what = f"The command ended with status {done.exit_status}, and printed more than the guest's agent keeps"
            raise GuestError(what, why="without a shell its output cannot be heard while it runs") from None
        return Completed(done.status)
    folder = f"/tmp/tinamou-{secrets.token_hex(8)}"  # noqa: S108 (in the guest, made by mkdir with umask 077)
    followed = [_Followed(agent, f"{folder}/out", out), _Followed(agent, f"{folder}/err", err)]
    try:
        async with _fed(agent, folder, input) as (script, feeding):

            async def each() -> bool:
                if feeding is not None and feeding.done():
                    feeding.result()
                return any([await one.read() for one in followed])

            done = await execute.run(
                agent,
                ["/bin/sh", "-c", script, folder, *how.words],
                input=input if feeding is None and isinstance(input, bytes) else None,
                env=how.env,
                timeout=timeout,
                each=each,
                called=command.argv,
            )
        if done.stderr and not any(one.opened for one in followed):
            raise GuestError("The guest has no room for the command's output", why=done.stderr.decode(errors="replace"))
        if done.status == execute.NOT_BEGUN and (error := how.failed(command, await _said(agent, f"{folder}/failed"))):
            raise error
        return done
    finally:
        await _clean(agent, folder, followed)


async def _shellless(agent: Agent, command: Command, input: Input, timeout: float | None) -> Completed:
    """In a Windows by what that has instead; in another guest without a shell as far as it goes."""
    if not await agent.is_windows():
        return await _bare(agent, command, input, timeout)
    from tinamou.guest import windows

    return await windows.capture(agent, command, input, timeout)


async def _bare(agent: Agent, command: Command, input: Input, timeout: float | None) -> Completed:
    """Run a command in a guest without a shell. Raises NoShellError for what needs one."""
    if command.cwd or command.user or command.env or not (input is None or isinstance(input, bytes)):
        why = "a folder, a user, variables, and input that comes piece by piece are its shell's work"
        raise NoShellError("The guest has no /bin/sh, and this command needs one", why=why)
    return await execute.run(agent, command.argv, input=input, timeout=timeout)


async def _said(agent: Agent, path: str) -> bytes:
    with contextlib.suppress(GuestError):
        return await files.read(agent, path)
    return b""


@contextlib.asynccontextmanager
async def _fed(agent: Agent, folder: str, input: Input) -> AsyncIterator[tuple[str, asyncio.Task[None] | None]]:
    """The script that begins the command, and what feeds it meanwhile; a small input is given along with the command."""
    if input is None or (isinstance(input, bytes) and len(input) < _LARGE_INPUT):
        yield _WRAPPED, None
        return
    made = await execute.run(agent, ["/bin/sh", "-c", _MAKE, folder])
    if made.status:
        raise GuestError("The guest has no room for the command's input", why=made.stderr.decode(errors="replace"))
    feeding = asyncio.create_task(_feed(agent, folder, input))
    try:
        yield _FEED + _WRAPPED, feeding
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _feed(agent: Agent, folder: str, input: Input) -> None:
    async with files.opened(agent, f"{folder}/in", "a") as handle:
        async for piece in pieces(input, files.PIECE):
            await files.write_piece(agent, f"{folder}/in", handle, piece)
            await agent.command("guest-file-flush", {"handle": handle})
    await files.write(agent, f"{folder}/all", [])


async def _clean(agent: Agent, folder: str, followed: list[_Followed]) -> None:
    """Remove the output; where the agent does not answer any more, it goes with the guest's /tmp."""
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
