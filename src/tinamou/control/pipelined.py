"""A monitor for a few commands written at once, before QEMU has even greeted: no round trip is waited for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tinamou.control.session import DisconnectedError, RefusedError
from tinamou.system.sockets import connect_unix

if TYPE_CHECKING:
    import asyncio

__all__ = ["Monitor"]

Command = tuple[str, Mapping[str, object]]


class Monitor:
    """A connected monitor socket; ``async with`` closes it. QEMU may not have started yet: the socket must only exist."""

    def __init__(self, path: str) -> None:
        self._begin(connect_unix(path), path, [("qmp_capabilities", {})])

    def _begin(self, connection: socket.socket, path: str, unsent: list[Command]) -> None:
        connection.setblocking(False)
        self._path, self._socket, self._unsent = path, connection, unsent
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    def adopted(cls, descriptor: int, path: str) -> Self:
        """A monitor of the socket ``path`` that another process opened and gave away with `hand_over`."""
        monitor = cls.__new__(cls)
        monitor._begin(socket.socket(fileno=descriptor), path, [])
        return monitor

    def hand_over(self) -> int:
        """A descriptor to give to another process, while nothing is under way; this end is closed."""
        connection = self._streams[1].get_extra_info("socket") if self._streams is not None else self._socket
        descriptor = os.dup(connection.fileno())
        self.close()
        return descriptor

    async def execute(self, commands: Sequence[Command], *, until: str = "") -> None:
        """Run commands in order, and wait for the event ``until``. Raises RefusedError, DisconnectedError."""
        import asyncio

        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._socket)
        reader, writer = self._streams
        todo = [*self._unsent, *commands]
        self._unsent = []
        lines = (json.dumps({"execute": name, "arguments": dict(arguments)}) for name, arguments in todo)
        writer.write("\n".join(lines).encode() + b"\n")
        while todo or until:
            line = await self._line(reader, todo)
            if "error" in line:
                name, arguments = todo[0]
                error = line["error"]
                raise RefusedError(name, arguments, error.get("class", ""), error.get("desc", ""))
            if "return" in line:
                todo.pop(0)
            elif until and line.get("event") == until:
                until = ""

    async def _line(self, reader: asyncio.StreamReader, todo: Sequence[Command]) -> dict[str, Any]:
        try:
            text = await reader.readline()
        except OSError:
            text = b""
        if not text:
            during = f" during {todo[0][0]}" if todo else ""
            raise DisconnectedError(f"QEMU closed the monitor{during}", why="it exited", fix=f"socket: {self._path}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
