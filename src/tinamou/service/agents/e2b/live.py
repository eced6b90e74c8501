"""A sandbox while it runs: the line to its guest, the commands under way in it, who watches its folders."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Mapping, Sequence

from tinamou.errors import GuestError
from tinamou.guest.command import Command, Completed, Input, command
from tinamou.guest.resident.line import Line
from tinamou.guest.resident.underway import RunningCommand
from tinamou.machine.connected import Connected
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.processes import Process
from tinamou.service.agents.e2b.watching import Watch
from tinamou.service.agents.listing import Run

__all__ = ["Live"]

ASK_SECONDS = 120.0
"""How long the guest may take for one thing about a file."""


class Live:
    """What this process knows of a running sandbox, and loses when it ends: commands, watches, the line."""

    def __init__(self, entry: Entry, machine: Connected) -> None:
        self.entry: Entry = entry
        self.machine: Connected = machine
        self.pid: int = machine.record.pid
        self.processes: dict[int, Process] = {}
        self.watches: dict[str, Watch] = {}
        self._homes: dict[str, str] = {}
        self._reaching = asyncio.Lock()

    async def line(self) -> Line:
        """The line to the guest, once that answers. Raises GuestError."""
        async with self._reaching:
            line = await self.machine.talking()
            with contextlib.suppress(OSError):  # others are then told that this process has the line
                self.machine.share()
            return line

    async def begin(self, what: Command, size: tuple[int, int] | None = None) -> RunningCommand:
        """Start a command to talk with. Raises GuestError, SpecError."""
        return await (await self.line()).open(what, size)

    async def run(
        self, argv: Sequence[str], *, user: str = "", input: Input = None, limit: float | None = ASK_SECONDS
    ) -> Completed:
        """Run something of tinamou's own in the guest, to its end. Raises GuestError."""
        return await (await self.line()).run(argv, user=self.user(user), input=input, timeout=limit)

    def runner(self, user: str) -> Run:
        """The same as `listing.Run`."""

        async def run(argv: Sequence[str]) -> Completed:
            return await self.run(argv, user=user)

        return run

    def user(self, named: str) -> str:
        """Who runs it: the one who is named, else the template's."""
        return named or self.entry.user

    def what(self, argv: Sequence[str], *, cwd: str = "", user: str = "", env: Mapping[str, str] | None = None) -> Command:
        """A command with the variables the sandbox was made with. Raises GuestError, SpecError."""
        return command(argv, cwd=cwd, user=self.user(user), env={**self.entry.env, **(env or {})})

    async def path(self, text: str, user: str) -> str:
        """A path as a client writes it, whole: one that is not begins in its user's home. Raises GuestError."""
        text = "" if text == "~" else text.removeprefix("~/")
        if text.startswith("/"):
            return posixpath.normpath(text).replace("//", "/")
        who = self.user(user)
        if who not in self._homes:
            home = (await self.run(["sh", "-c", 'printf %s "$HOME"'], user=user)).stdout.decode(errors="surrogateescape")
            if not home.startswith("/"):
                raise GuestError(f"{who or 'root'} has no home in the guest", fix="give a path from / on")
            self._homes[who] = home
        return posixpath.normpath(posixpath.join(self._homes[who], text))

    def close(self) -> None:
        """Let go of everything in it; the machine goes on."""
        for watch in self.watches.values():
            watch.stop()
        self.watches.clear()
        self.machine.drop_line()
