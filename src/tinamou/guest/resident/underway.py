"""A command that runs in a guest by the resident's line: its output as it comes, its input, its terminal, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Literal

from tinamou.errors import GuestError, TimeLimitError
from tinamou.guest.command import Command, Completed, Hear, Input, completed, kept, no_folder, no_user, not_found, pieces
from tinamou.guest.resident.frames import PIECE, RING, WINDOW, Size

__all__ = ["RunningCommand", "attend", "capture"]

KILL = 9
AFTERWARDS_SECONDS = 5.0
"""How long a guest is waited for that was told to kill a command."""

_NUMBER = struct.Struct("<I")


class RunningCommand:
    """A command under way, and the only one who reads its output: ``read`` again and again, until it gives None.

    The guest goes on only when its output is read: at most 256 KiB are kept here. It is let go of with `leave`.
    """

    def __init__(self, command: Command, send: Callable[[str, bytes], None], leave: Callable[[], None]) -> None:
        self.command: Command = command
        self.pid: int = 0
        self.status: int | None = None
        self._send, self._leave = send, leave
        self._output: deque[tuple[Literal["out", "err"], bytes]] = deque()
        self._error: GuestError | None = None
        self._told = asyncio.Event()
        self._taken = self._untaken = 0
        self._room, self._refused = RING, False

    @property
    def over(self) -> bool:
        """Whether it has ended, or can no longer be heard of; output may still be there to be read."""
        return self.status is not None or self._error is not None

    def take(self, kind: str, payload: bytes) -> None:
        """What the guest says about it. Raises ValueError for what no resident says, or more than it may."""
        sizes = {"O": range(1, WINDOW), "E": range(1, WINDOW), "W": (4,), "C": (0,), "G": (4,), "D": (4,), "F": (2,)}
        if len(payload) not in sizes.get(kind, ()):
            raise ValueError(f"{kind!r} with {len(payload)} bytes about a command")
        if kind in "OE":
            self._untaken += len(payload)
            self._output.append(("out" if kind == "O" else "err", payload))
        elif kind == "W":
            self._room += _NUMBER.unpack(payload)[0]
        elif kind == "C":
            self._refused = True
        elif kind == "G":
            self.pid = _NUMBER.unpack(payload)[0]
        elif kind == "D":
            self.status = os.waitstatus_to_exitcode(struct.unpack("<i", payload)[0])
        elif kind == "F":
            self._error = _not_started(self.command, chr(payload[0]), payload[1])
        if self._untaken > WINDOW or self._room > RING:
            raise ValueError("more than may be under way")
        if self.over:
            self._leave()
        self._told.set()

    def lost(self, error: GuestError) -> None:
        """The line has ended: nothing more will be heard."""
        if not self.over:
            self._error = error
        self._told.set()

    async def begun(self) -> None:
        """Return when the guest has started it. Raises GuestError when it cannot."""
        await self._until(lambda: bool(self.pid or self._output))

    async def read(self) -> tuple[Literal["out", "err"], bytes] | None:
        """What it has printed next, and on which stream; None at its end, which sets ``status``. Raises GuestError."""
        await self._until(lambda: bool(self._output))
        if not self._output:
            return None
        stream, piece = self._output.popleft()
        self._taken += len(piece)
        if self._taken >= WINDOW // 2 and not self.over:
            self._send("W", _NUMBER.pack(self._taken))
            self._untaken -= self._taken
            self._taken = 0
        return stream, piece

    async def write(self, data: bytes) -> bool:
        """Give it input, waiting until the guest has room; whether somebody reads it there. Raises GuestError."""
        while data and not self._refused and self.status is None:
            await self._until(lambda: self._room > 0 or self._refused)
            piece = data[: min(self._room, PIECE)]
            if piece and not self.over:
                self._room -= len(piece)
                self._send("T", piece)
            data = data[len(piece) :]
        return not self._refused and self.status is None

    def end_input(self) -> None:
        """It has had all its input."""
        self._say("C")

    def resize(self, size: Size) -> None:
        """Its terminal has another size: columns, rows."""
        self._say("Z", struct.pack("<HH", *size))

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it has started."""
        self._say("K", bytes([number]))

    def leave(self) -> None:
        """End it, unheard: its terminal hangs up; without a terminal it is killed."""
        self._say("B")
        if not self.over:
            self.lost(GuestError(f"The command {self.command} was given up"))
            self._leave()

    def _say(self, kind: str, payload: bytes = b"") -> None:
        if not self.over:
            self._send(kind, payload)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Return when it holds, or the command has ended. Raises what happened to the line, or to the start."""
        while not holds() and not self.over:
            self._told.clear()
            await self._told.wait()
        if self._error is not None and not self._output:
            raise self._error


def _not_started(command: Command, step: str, number: int) -> GuestError:
    reason = os.strerror(number)
    if step == "u":
        return no_user(command.user)
    if step == "d":
        return no_folder(command.cwd, reason)
    if step == "n":
        return GuestError(
            f"The guest cannot start {command}", why="as many commands run there as can at a time", fix="end one"
        )
    if step == "t":
        return GuestError(
            "The guest has no terminal to give", why=f"/dev/ptmx: {reason}", fix="mount devpts on /dev/pts there"
        )
    return not_found(command.argv[0], reason)


async def attend(session: RunningCommand, out: Hear, err: Hear, *, input: Input = None, timeout: float | None = None) -> int:
    """Hand on its output and give it its input until it ends; its status.

    When ``timeout`` seconds pass, which raises TimeLimitError, or the caller is cancelled, it is killed.
    """
    try:
        async with asyncio.timeout(timeout):
            await _both_ways(session, out, err, input)
    except TimeoutError:
        await _kill(session)
        raise TimeLimitError(
            f"The command {session.command} did not end within {timeout:g} s", why="it was killed in the guest"
        ) from None
    except BaseException:
        await asyncio.shield(_kill(session))
        raise
    assert session.status is not None
    return session.status


async def _both_ways(session: RunningCommand, out: Hear, err: Hear, input: Input) -> None:
    if input is None or (isinstance(input, bytes) and len(input) <= RING):
        await _feed(session, input)
        await _listen(session, out, err)
        return
    tasks = [asyncio.ensure_future(_listen(session, out, err)), asyncio.ensure_future(_feed(session, input))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            tasks[1].result()
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(session: RunningCommand, out: Hear, err: Hear) -> None:
    while (said := await session.read()) is not None:
        (out if said[0] == "out" else err)(said[1])


async def _feed(session: RunningCommand, input: Input) -> None:
    async for piece in pieces(input, PIECE):
        if not await session.write(piece):
            return
    session.end_input()


async def _kill(session: RunningCommand) -> None:
    """Kill it, and hear it out for a moment; then it is let go of."""
    session.signal(KILL)
    with contextlib.suppress(TimeoutError, GuestError):
        async with asyncio.timeout(AFTERWARDS_SECONDS):
            while await session.read() is not None:
                pass
    session.leave()


async def capture(session: RunningCommand, *, input: Input = None, timeout: float | None = None) -> Completed:
    """Run it to its end and keep its output, up to the bound of `Completed`."""
    out, err = bytearray(), bytearray()
    status = await attend(session, kept(out), kept(err), input=input, timeout=timeout)
    return completed(status, out, err)
