"""The host's end of the resident's line: who the guest is, and commands, as many at a time as there are channels."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from tinamou.errors import GuestError
from tinamou.guest.command import Command, Completed, Hear, Input, command
from tinamou.guest.resident.frames import HEADER, LARGEST, Size, start
from tinamou.guest.resident.owed import Identity, Owed, fail, resolve
from tinamou.guest.resident.underway import RunningCommand, attend, capture
from tinamou.guest.resident.wire import Receiver, Wire
from tinamou.system.closing import IfFailed
from tinamou.system.sockets import connect_unix
from tinamou.system.turns import Turn

__all__ = ["PORT", "HeldError", "Line", "LineError"]

PORT = "org.tinamou.resident.0"
"""The name of the virtio-serial port the resident listens on."""

BECOME_SECONDS = 60.0
"""How long a guest may take to become another."""

FRESH_SECONDS = 0.5
"""No guest restarts within this time."""

PATIENCE_SECONDS = 3.0
"""After this time without an answer a guest may have been copied in the middle of what it was told: it is told anew."""


_LATE_SECONDS, _AGAIN = 0.5, 2
"""A guest that took longer to hear what time it is has a clock that is behind by so much: it is told again."""


class LineError(GuestError):
    """The resident does not answer, or the line to it ended."""


class HeldError(LineError):
    """Another process has the machine's line: ``holder`` is its number, 0 where it cannot be told."""

    def __init__(self, holder: int) -> None:
        who = f"process {holder}" if holder else "another process"
        super().__init__(
            "The line to the guest's resident is in use", why=f"{who} holds it", fix="wait for its end, or end it"
        )
        self.holder = holder


_GREET_SECONDS, _PADDED_SECONDS = 0.05, 2.0
"""How long the first greeting may go unanswered before another one is sent; each waits twice as long as the last. A guest
that has just been told that somebody is there may have read the first, and lost its answer to nobody (virtio's data and its
news of who is connected are two queues). One that boots reads them all: only those that wait long end a frame it may be in
the middle of, which is 32 KiB more to read."""

_LOST_GREETINGS = 2
"""So many greetings may be lost, while what is asked after them is answered, until that tells an older version."""


class Line:
    """A connected line. A machine's resident serves one line at a time, so it belongs to one process at a time."""

    def __init__(self, path: str) -> None:
        """Connect now, without waiting; QEMU may not have started yet. Raises HeldError, NotListeningError, OSError."""
        turn = Turn(f"{path}.lock")
        cut_off = bool(turn.holder())
        if not turn.take():
            raise HeldError(turn.holder())
        with IfFailed(turn.give):
            self._begin(connect_unix(path), turn, cut_off=cut_off)

    def _begin(self, connection: socket.socket, turn: Turn | None, *, cut_off: bool = False) -> None:
        self._wire = Wire(connection, self._take, self._end)
        self._turn = turn
        self._channels: dict[int, Receiver] = {}
        self._last = 0
        self._greetings: set[bytes] = set()
        self._greeted = self._met = False
        self._cut_off = cut_off
        self._hellos: dict[bytes, asyncio.Future[None]] = {}
        self._asked_since: set[bytes] = set()
        self._ungreeted = 0
        self._owed: Owed | None = None
        self._took = 0.0
        self._ended: LineError | None = None
        self._heard = time.monotonic()
        self.borrowed = False
        """Whether it leads to the process that has the machine's own, and not to the guest."""
        self.on_end: Callable[[], None] | None = None
        """Called when the line has ended."""

    @classmethod
    def adopted(cls, descriptor: int) -> Self:
        """A line another process opened and gave away with `hand_over`."""
        line = cls.__new__(cls)
        line._begin(socket.socket(fileno=descriptor), None)
        line._greeted = line._met = True
        return line

    @classmethod
    def to(cls, path: str) -> Self:
        """A line by way of the process that has the machine's own, and shares it on a socket. Raises as the class does."""
        line = cls.__new__(cls)
        line._begin(connect_unix(path), None)
        line.borrowed = True
        return line

    def hand_over(self) -> int:
        """A descriptor to give to another process, while nothing is under way; the line ends here."""
        if not self._wire.up or self.owes or self._channels or self.borrowed:
            raise LineError("The line to the guest's resident was closed, or is in use")
        descriptor = self._wire.copy()
        self.close()
        return descriptor

    @property
    def fresh(self) -> bool:
        """Whether the resident was heard so lately that the guest cannot have restarted since, or is to answer now."""
        return self.owes or time.monotonic() - self._heard < FRESH_SECONDS

    @property
    def met(self) -> bool:
        """Whether anybody has answered at its other end."""
        return self._met

    @property
    def free(self) -> bool:
        """Whether a command can be run now."""
        return self._wire.up

    def close(self) -> None:
        """Hang up; the guest ends what runs by this line."""
        self._end_with(LineError("The line to the guest's resident was closed"))

    async def hello(self, timeout: float = 10.0) -> None:
        """Return when the resident has answered. Raises LineError after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled(timeout)
                pause = _GREET_SECONDS
                while not await self._answers(pause):
                    pause *= 2
        except TimeoutError:
            raise LineError("The guest's resident does not answer", why=f"nothing was heard for {timeout:g} s") from None

    async def _answers(self, seconds: float) -> bool:
        """Ask for an answer; one who has been greeted in vain so far may be gone, or was replaced, and is greeted anew."""
        nonce = os.urandom(8)
        answer = self._hellos[nonce] = asyncio.get_running_loop().create_future()
        try:
            if self._greeted and not self._met:
                self._greet(anew=seconds > _PADDED_SECONDS)
            self.send("H", nonce)
            self._asked_since.add(nonce)
            await asyncio.wait([answer], timeout=seconds)
            while self._met and not answer.done():
                await asyncio.wait([answer])
            return answer.done() and answer.result() is None
        finally:
            self._hellos.pop(nonce, None)
            self._asked_since.discard(nonce)

    async def become(self, who: Identity, timeout: float = BECOME_SECONDS) -> None:
        """Reseed the guest's random numbers, set its clock, and make it ``who``. Raises LineError, GuestError."""
        await self.begin_to_become(who)
        await self.settle(timeout)

    async def begin_to_become(self, who: Identity, *, after: asyncio.Task[None] | None = None) -> None:
        """The same without waiting until it is so: what the resident is asked next comes after it. Raises LineError.

        Whether it worked is told by what is asked next, or by `settle`; both raise what ``after`` raises, which lets the
        guest run.
        """
        await self._settled(BECOME_SECONDS)
        self._tell(who, after)

    def _tell(self, who: Identity, after: asyncio.Task[None] | None = None) -> None:
        owed = Owed.of(who, after)
        self.send("I", owed.payload(borrowed=self.borrowed))
        self._owed = owed

    async def set_clock(self, timeout: float = BECOME_SECONDS, *, ahead: int = 0) -> float:
        """Set the guest's clock ``ahead`` seconds from this host's; seconds until it had, which it is behind at most.

        Raises LineError, GuestError.
        """
        await self.become(Identity(ahead=ahead), timeout)
        return self._took

    @property
    def owes(self) -> bool:
        """Whether the guest was told who to be, and nobody has asked yet whether it is."""
        return self._owed is not None

    async def settle(self, timeout: float = BECOME_SECONDS) -> None:
        """Return when the guest is who it was last told to be. Raises LineError, GuestError when it is not."""
        await self._settled(timeout)

    async def _settled(self, timeout: float) -> None:
        """Wait for the answer that is owed; a guest that heard too late what time it is is told again."""
        again = _AGAIN
        while self._owed is not None:
            owed = self._owed
            await self._answered(owed, timeout)
            if self._owed is None and self._took > _LATE_SECONDS and again:
                again -= 1
                self._tell(Identity(ahead=owed.ahead))

    async def _answered(self, owed: Owed, timeout: float) -> None:
        """Wait for that answer. If it is not what it must be, the line ends: what was sent since fails too."""
        try:
            async with asyncio.timeout(timeout):
                if owed.after is not None:
                    await asyncio.shield(owed.after)
                if not (await asyncio.wait([owed.answer], timeout=PATIENCE_SECONDS))[0]:
                    self._greet(anew=True)
                    self.send("I", owed.payload(borrowed=self.borrowed))
                came, results = await asyncio.shield(owed.answer)
        except TimeoutError:
            self._owed = None
            self.close()
            why = f"its resident said nothing for {timeout:g} s"
            raise LineError("The guest did not take its new identity", why=why) from None
        except Exception:
            self._owed = None
            raise
        self._took = came - owed.told
        if self._owed is owed:
            self._owed = None
        if (failed := owed.failed(results)) is not None:
            self.close()
            raise GuestError("The guest did not take its new identity", why=failed)

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end; when ``timeout`` seconds pass or the caller is cancelled it is killed.

        Up to 16 MiB of each output are kept. Raises GuestError, SpecError.
        """
        return await capture(await self._begun(command(argv, cwd=cwd, user=user, env=env)), input=input, timeout=timeout)

    async def stream(
        self,
        argv: Sequence[str],
        out: Hear,
        err: Hear,
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> Completed:
        """As `run`, but the output is handed to ``out`` and ``err`` while the command runs, and there is no limit to it."""
        session = await self._begun(command(argv, cwd=cwd, user=user, env=env))
        return Completed(await attend(session, out, err, input=input, timeout=timeout))

    async def open(self, what: Command, terminal: Size | None = None) -> RunningCommand:
        """Start a command to talk with, at a terminal of that size where one is given. Raises GuestError."""
        session = self._start(what, terminal, tell=True)
        with IfFailed(session.leave):
            await session.begun()
        return session

    async def _begun(self, what: Command) -> RunningCommand:
        session = self._start(what)
        with IfFailed(session.leave):
            await self._settled(BECOME_SECONDS)
        return session

    def _start(self, what: Command, terminal: Size | None = None, *, tell: bool = False) -> RunningCommand:
        channel = self.free_channel()
        self.send("S", start(what, terminal, tell=tell), channel)
        session = RunningCommand(what, lambda kind, payload: self.say(kind, payload, channel), lambda: self.detach(channel))
        self.attach(channel, session)
        return session

    def free_channel(self) -> int:
        """The number of a channel nobody uses, and nobody has used lately."""
        self._last = self._last % 0xFFFF + 1
        while self._last in self._channels:
            self._last = self._last % 0xFFFF + 1
        return self._last

    def attach(self, channel: int, receiver: Receiver) -> None:
        """Let ``receiver`` hear the channel, until `detach`."""
        self._channels[channel] = receiver

    def detach(self, channel: int) -> None:
        """What comes on the channel is dropped."""
        self._channels.pop(channel, None)

    def send(self, kind: str, payload: bytes = b"", channel: int = 0) -> None:
        """Send a frame. Raises LineError on a line that has ended."""
        if self._ended is not None:
            raise self._ended
        self.say(kind, payload, channel)

    def say(self, kind: str, payload: bytes = b"", channel: int = 0) -> None:
        """Send a frame; on a line that has ended, nothing."""
        if not self._greeted:
            self._greet(anew=self._cut_off)
        self._wire.send(kind, payload, channel)

    def _greet(self, *, anew: bool) -> None:
        """Begin to speak; ``anew`` where the guest may still wait for the rest of what was said before."""
        if anew:
            self._wire.pad(LARGEST + HEADER.size)
        if self._met or anew:
            self._greetings.clear()  # what answers those may be a guest as it was before
        greeting = os.urandom(8)
        self._greeted, self._met = True, False
        self._greetings.add(greeting)
        self._asked_since.clear()
        self._wire.send("R", greeting)

    def _take(self, kind: str, channel: int, payload: bytes) -> None:
        """A frame that came. Until the resident has answered the greeting, it speaks to the last host."""
        self._heard = time.monotonic()
        if not self._met:
            self._hear_greeting(kind, payload)
        elif channel:
            if (receiver := self._channels.get(channel)) is not None:
                try:
                    receiver.take(kind, payload)
                except ValueError as error:
                    self._end(f"it sends what is no frame: {error}")
        elif kind in "RH":
            if payload in self._hellos:
                resolve(self._hellos[payload], None)
        elif kind == "I":
            if self._owed is not None:
                resolve(self._owed.answer, (self._heard, payload))
        elif kind == "N":
            hellos, self._hellos = self._hellos, {}
            self._lose(LineError("The guest was restarted", why="what ran in it has ended"))
            self._hellos = hellos
            for nonce in hellos:  # what the guest before was asked, this one was not
                self.send("H", nonce)
        else:
            self._end(f"it sends what is no frame: {kind!r}")

    def _hear_greeting(self, kind: str, payload: bytes) -> None:
        self._met = kind == "R" and payload in self._greetings
        if kind == "H" and payload in self._asked_since:
            # a greeting is lost on one who still looks at the line before this, which has just ended: it is said again
            self._ungreeted += 1
            if self._ungreeted > _LOST_GREETINGS:
                self._end("it is that of an older version; it is replaced when the guest restarts")
        elif kind == "H" and payload in self._hellos:  # asked after an earlier greeting, which was answered just before
            resolve(self._hellos[payload], None)

    def _end(self, why: str) -> None:
        """The line has ended by itself."""
        self._end_with(LineError("The line to the guest's resident ended", why=why))

    def _end_with(self, error: LineError) -> None:
        self._ended = self._ended or error
        self._wire.close()
        self._lose(error)
        ended, self.on_end = self.on_end, None
        if ended is not None:
            ended()
        if self._turn is not None:  # at last: the next one begins where this one has left nothing
            self._turn.give()
            self._turn = None

    def _lose(self, error: LineError) -> None:
        """Nothing more will be heard of what is under way."""
        channels, self._channels = self._channels, {}
        for receiver in channels.values():
            receiver.lost(error)
        for hello in self._hellos.values():
            fail(hello, error)
        if self._owed is not None:
            fail(self._owed.answer, error)
