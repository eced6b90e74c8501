"""Messages between here and QEMU, one JSON object a line, none of them trusted: their length, depth and kind are bounded.

Source: docs/interop/qmp-spec of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from tinamou.control.answers import shown
from tinamou.errors import ControlError
from tinamou.system.lines import PIECE, Lines, json_of

__all__ = ["EVENT_BYTES", "LARGE_BYTES", "MESSAGE_BYTES", "GarbledError", "Wire", "parsed"]

MESSAGE_BYTES = 1 << 20
"""How long a message may be where nothing else is said."""

LARGE_BYTES = 16 << 20
"""How long the answer to a command may be that lists much: 64 disks on 200 files each are half of that."""

EVENT_BYTES = 64 << 10
"""How long an event may be: they are kept."""


class GarbledError(ControlError):
    """QEMU sent what no QEMU sends; nothing it says after that is listened to."""

    def __init__(self, why: str) -> None:
        super().__init__("QEMU sent what is no QMP", why=why)


def parsed(line: bytes) -> dict[str, Any]:
    """A line as the JSON object it must be. Raises GarbledError."""
    try:
        value = json_of(line)
    except ValueError as reason:
        raise GarbledError(f"{reason}: {shown(line)}") from None
    if not isinstance(value, dict):
        raise GarbledError(f"it is no JSON object: {shown(line)}")
    if "event" in value and len(line) > EVENT_BYTES:
        raise GarbledError(f"an event of {len(line)} bytes")
    return value


class Wire:
    """A connected monitor socket. Reading and writing wait for QEMU; whoever calls sets the time for it."""

    def __init__(self, connection: socket.socket, most: Callable[[], int] = lambda: MESSAGE_BYTES) -> None:
        """``most`` is how long the message that comes next may be."""
        self._socket = connection
        self._most = most
        self._lines: Lines | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sending: asyncio.Lock | None = None
        self._opening = self._ended = False

    async def _open(self) -> tuple[Lines, asyncio.StreamWriter]:
        if self._lines is None or self._writer is None:
            self._opening = True
            try:
                reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=PIECE)
            finally:
                self._opening = False
            if self._ended:
                self._writer.transport.abort()
                raise ConnectionAbortedError("hung up meanwhile")
            self._writer.transport.set_write_buffer_limits(0)  # `drain` returns when all is sent
            self._lines, self._sending = Lines(reader), asyncio.Lock()
        return self._lines, self._writer

    async def receive(self) -> dict[str, Any]:
        """The next message. Raises EOFError at the end, OSError, GarbledError."""
        lines, _ = await self._open()
        try:
            line = await lines.next(self._most)
        except ValueError as reason:
            raise GarbledError(str(reason)) from None
        return parsed(line)

    async def send(self, *messages: Mapping[str, object], fd: int | None = None) -> None:
        """Send messages in one piece, with a copy of a descriptor before them where there is one. Raises OSError."""
        data = "".join(f"{json.dumps(message)}\n" for message in messages).encode()
        _, writer = await self._open()
        assert self._sending is not None
        async with self._sending:
            if fd is not None:
                await writer.drain()
                await self._pass(fd)
            writer.write(data)
            await writer.drain()

    async def _pass(self, fd: int) -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                socket.send_fds(self._socket, [b" "], [fd])
                return
            await asyncio.sleep(0.001)

    def descriptor(self) -> int:
        """The socket's descriptor; it stays this wire's."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up at once, whatever is under way; what is being opened is closed by who opens it."""
        self._ended = True
        if self._writer is not None:
            self._writer.transport.abort()
        elif self._opening:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._socket.close()
