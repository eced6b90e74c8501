"""One line for several processes: who holds it shares it; where nobody attends the machine, a process of its own does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tinamou.errors import GuestError
from tinamou.facts.files import RESIDENT_SHARED
from tinamou.guest.resident.line import HeldError, Line, LineError
from tinamou.guest.resident.owed import FRESH, Identity
from tinamou.guest.resident.wire import Wire
from tinamou.system.sockets import NotListeningError, listen_unix
from tinamou.system.spawn import alive, apart, spawn
from tinamou.system.turns import Turn

__all__ = ["Sharing", "connect", "shared", "shared_path"]

_AHEAD = struct.calcsize("<q")
_LINGER_SECONDS = 0.5
"""How long a process that holds a line for others waits for the next one."""

_START_SECONDS, _PAUSE, _TRIES = 5.0, 0.05, 5


def connect(path: str) -> Line:
    """The line of the resident's socket ``path``, or one by way of the process that has it.

    Raises HeldError where that one does not share it, LineError where QEMU is gone, or takes no connections.
    """
    failed: LineError
    for _ in range(_TRIES):
        try:
            return Line(path)
        except HeldError as error:
            failed = error
        except NotListeningError as reason:
            stuck = "QEMU is stuck: connections wait for it" if reason.errno == errno.EAGAIN else "QEMU has ended"
            failed = LineError(f"The line to the guest's resident {path} cannot be opened", why=stuck)
        with contextlib.suppress(NotListeningError):
            return Line.to(shared_path(path))
        time.sleep(_PAUSE)
    raise failed


def shared(path: str) -> Line:
    """A line by way of a process that holds the machine's own for as long as somebody needs it; started where there is none.

    Raises HeldError where another process has it and does not share it.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(NotListeningError):
            return Line.to(shared_path(path))
        if not _started(path):
            time.sleep(_PAUSE)
    raise HeldError(Turn(f"{path}.lock").holder())


def shared_path(path: str) -> str:
    """Where the line of the resident's socket ``path`` is shared."""
    return str(Path(path).with_name(RESIDENT_SHARED))


def _started(path: str) -> bool:
    """Start a process that holds the line; whether it does. A program with threads cannot be copied, but for one that begins
    anew."""
    if threading.active_count() == 1:
        return apart(lambda ready: _hold(path, ready))
    words = [sys.executable, "-m", "tinamou.guest.resident.sharing", path]
    process = spawn(words, log=os.devnull, environment=dict(os.environ))
    deadline = time.monotonic() + _START_SECONDS
    while alive(process) and time.monotonic() < deadline:
        if Turn(f"{path}.lock").holder() == process.pid and Path(shared_path(path)).exists():
            return True
        time.sleep(_PAUSE)
    return False


def _hold(path: str, ready: Callable[[], None]) -> None:
    """Hold the line and share it until nobody needs it any more, or it ends."""

    async def hold() -> None:
        with contextlib.closing(Line(path)) as line:
            sharing = Sharing(line, path)
            ready()
            await sharing.idle()

    with contextlib.suppress(LineError, OSError):
        asyncio.run(hold())


class Sharing:
    """Other processes may use the line of the resident's socket ``path``, until it ends.

    Each of them has channels of its own, by numbers of its own. Raises OSError where nobody could be let in.
    """

    def __init__(self, line: Line, path: str) -> None:
        self._line, self._path = line, shared_path(path)
        self._listener = listen_unix(self._path)
        self._guests: set[_Guest] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)
        line.on_end = self._end

    async def idle(self) -> None:
        """Return when the line has ended, or nobody has needed it for half a second."""
        while self._line.free:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._guests else _LINGER_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _end(self) -> None:
        Path(self._path).unlink(missing_ok=True)
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for guest in list(self._guests):
            guest.close()
        self._changed.set()

    def left(self, guest: _Guest) -> None:
        """A guest has gone."""
        self._guests.discard(guest)
        self._changed.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            self._guests.add(_Guest(connection, self._line, self))
            self._changed.set()


class _Guest:
    """One process that uses the line of another: its frames go on under other channel numbers, and so do the answers."""

    def __init__(self, connection: socket.socket, line: Line, sharing: Sharing) -> None:
        self._line, self._sharing = line, sharing
        self._channels: dict[int, int] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._wire = Wire(connection, self._take, lambda _: self.close())
        self._wire.open()

    def close(self) -> None:
        """Let go of what it runs, and hang up."""
        for theirs, ours in list(self._channels.items()):
            self._line.say("B", channel=ours)
            self.over(theirs)
        for task in self._asking:
            task.cancel()
        self._wire.close()
        self._sharing.left(self)

    def over(self, channel: int) -> None:
        """Nothing more will come for a channel."""
        self._line.detach(self._channels.pop(channel))

    def pass_on(self, kind: str, payload: bytes, channel: int) -> None:
        """What the resident says on a channel."""
        self._wire.send(kind, payload, channel)
        if kind in "DF":
            self.over(channel)

    def _take(self, kind: str, channel: int, payload: bytes) -> None:
        if kind == "R":
            self._wire.send("R", payload)
        elif kind == "H":
            self._ask(payload)
        elif kind == "I":
            self._later(self._set_clock(struct.unpack("<q", payload)[0] if len(payload) == _AHEAD else 0))
        elif kind == "S" and channel and channel not in self._channels:
            ours = self._channels[channel] = self._line.free_channel()
            self._line.attach(ours, _Relay(self, channel))
            self._line.say(kind, payload, ours)
        elif kind in "TCKZWB" and channel in self._channels:
            self._line.say(kind, payload, self._channels[channel])
            if kind == "B":
                self.over(channel)

    def _ask(self, nonce: bytes) -> None:
        """Pass a greeting on when the resident has answered one."""

        async def ask() -> None:
            while self._line.free:  # who asked knows how long to wait: the guest may yet be given its resident
                with contextlib.suppress(GuestError):
                    await self._line.hello()
                    self._wire.send("H", nonce)
                    return
                await asyncio.sleep(_PAUSE)
            self.close()

        self._later(ask())

    async def _set_clock(self, ahead: int) -> None:
        """The guest stays who it is: its clock is set, and its random numbers are made anew."""
        try:
            await self._line.become(Identity(ahead=ahead))
            self._wire.send("I", bytes(FRESH))
        except GuestError:
            self._wire.send("I", bytes([errno.EIO] * FRESH))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)


class _Relay:
    """Hears a channel for a guest."""

    def __init__(self, guest: _Guest, channel: int) -> None:
        self._guest, self._channel = guest, channel

    def take(self, kind: str, payload: bytes) -> None:
        self._guest.pass_on(kind, payload, self._channel)

    def lost(self, error: GuestError) -> None:
        """Whoever used it is told by the end of its own line."""
        self._guest.close()


if __name__ == "__main__":
    _hold(sys.argv[1], lambda: None)
