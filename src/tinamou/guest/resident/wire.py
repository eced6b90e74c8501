"""A socket on which frames go both ways, in one event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from tinamou.errors import GuestError
from tinamou.guest.resident.frames import HEADER, LARGEST, frame

__all__ = ["Receiver", "Wire"]

_AT_ONCE = 1 << 18
_MOST_UNSENT = 32 << 20


class Receiver(Protocol):
    """What hears a channel: a frame that came, or that there will be none any more."""

    def take(self, kind: str, payload: bytes) -> None:
        """A frame of the channel. Raises ValueError for what is none."""

    def lost(self, error: GuestError) -> None:
        """The line, or the guest behind it, has ended."""


class Wire:
    """Hands on what comes, frame by frame, from the first `open` on, and sends without waiting.

    Whoever sends has agreed with the other side on how much may be under way: what the socket does not take at once is kept.
    ``lost`` is called once, with a reason, when the other side has gone, says what is no frame, or takes nothing more; not
    after `close`.
    """

    def __init__(
        self, connection: socket.socket, take: Callable[[str, int, bytes], None], lost: Callable[[str], None]
    ) -> None:
        connection.setblocking(False)
        self._socket: socket.socket | None = connection
        self._take, self._lost = take, lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came, self._unsent = bytearray(), bytearray()

    @property
    def up(self) -> bool:
        """Whether it has not been closed, and the other side has not gone."""
        return self._socket is not None

    def open(self) -> None:
        """Listen, in the running event loop."""
        if self._loop is None and self._socket is not None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._readable)

    def send(self, kind: str, payload: bytes = b"", channel: int = 0) -> None:
        """One frame; on a wire that is down, nothing."""
        self._put(frame(kind, payload, channel))

    def pad(self, size: int) -> None:
        """So many zero bytes, which end whatever frame the other side was in the middle of."""
        self._put(bytes(size))

    def _put(self, data: bytes) -> None:
        self.open()
        if self._socket is None:
            return
        if not self._unsent:
            data = data[self._sent(data) :]
            if data and self._loop is not None:
                self._loop.add_writer(self._socket, self._writable)
        self._unsent += data
        if len(self._unsent) > _MOST_UNSENT:
            self._end("it takes nothing more")

    def copy(self) -> int:
        """A descriptor of the same connection."""
        assert self._socket is not None
        return self._socket.dup().detach()

    def close(self) -> None:
        """Hang up; also from another thread."""
        loop, connection, self._socket = self._loop, self._socket, None
        if connection is None:
            return
        if loop is None or loop.is_closed():
            connection.close()
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            _leave(loop, connection)
        else:
            loop.call_soon_threadsafe(_leave, loop, connection)

    def _sent(self, data: bytes | bytearray) -> int:
        """How many bytes the socket took. A wire that broke is noticed by reading."""
        assert self._socket is not None
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _writable(self) -> None:
        if self._socket is None or self._loop is None:
            return
        del self._unsent[: self._sent(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("QEMU exited, or was killed")
            return
        self._came += data
        for kind, channel, payload in self._frames():
            self._take(kind, channel, payload)

    def _frames(self) -> Iterator[tuple[str, int, bytes]]:
        """The frames that are complete, until the wire is closed."""
        at = 0
        try:
            while self._socket is not None and len(self._came) - at >= HEADER.size:
                kind, channel, length = HEADER.unpack_from(self._came, at)
                if length > LARGEST:
                    self._end(f"it sends what is no frame: a length of {length} bytes")
                    return
                begin, end = at + HEADER.size, at + HEADER.size + length
                if end > len(self._came):
                    return
                at = end
                yield chr(kind), channel, bytes(self._came[begin:end])
        finally:
            del self._came[:at]

    def _end(self, why: str) -> None:
        self.close()
        self._lost(why)


def _leave(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    loop.remove_reader(connection)
    loop.remove_writer(connection)
    connection.close()
