"""A monitor for a few commands written at once, before QEMU has even greeted: no round trip is waited for."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tinamou.control.session import DisconnectedError, SilentError, event_of, refusal
from tinamou.control.wire import Wire
from tinamou.system.sockets import connect_unix

__all__ = ["Monitor"]

_SECONDS = 60.0

Command = tuple[str, Mapping[str, object]]


class Monitor:
    """A connected monitor socket; ``async with`` closes it. QEMU may not have started yet: the socket must only exist."""

    def __init__(self, path: str) -> None:
        self._begin(connect_unix(path), path, [("qmp_capabilities", {})])

    def _begin(self, connection: socket.socket, path: str, unsent: list[Command]) -> None:
        connection.setblocking(False)
        self._path, self._wire, self._unsent = path, Wire(connection), unsent

    @classmethod
    def adopted(cls, descriptor: int, path: str) -> Self:
        """A monitor of the socket ``path`` that another process opened and gave away with `hand_over`."""
        monitor = cls.__new__(cls)
        monitor._begin(socket.socket(fileno=descriptor), path, [])
        return monitor

    def hand_over(self) -> int:
        """A descriptor to give to another process, while nothing is under way; this end is closed."""
        descriptor = os.dup(self._wire.descriptor())
        self.close()
        return descriptor

    async def execute(self, commands: Sequence[Command], *, until: str = "", timeout: float = _SECONDS) -> None:
        """Run commands in order, and wait for the event ``until``, within ``timeout`` seconds.

        Raises RefusedError, DisconnectedError, SilentError, GarbledError.
        """
        todo = [*self._unsent, *commands]
        self._unsent = []
        try:
            async with asyncio.timeout(timeout) as limit:
                await self._wire.send(*({"execute": name, "arguments": dict(given)} for name, given in todo))
                await self._answers(todo, until)
        except TimeoutError:
            if not limit.expired():
                raise
            raise SilentError(todo[0][0] if todo else until, timeout) from None
        except (OSError, EOFError) as reason:
            during = f" during {todo[0][0]}" if todo else ""
            fix = f"socket: {self._path}"
            raise DisconnectedError(f"QEMU closed the monitor{during}", why="it exited", fix=fix) from reason

    async def _answers(self, todo: list[Command], until: str) -> None:
        while todo or until:
            message: dict[str, Any] = await self._wire.receive()
            if "event" in message:
                until = "" if event_of(message).name == until else until
            elif todo and "error" in message:
                raise refusal(*todo[0], message)
            elif todo and "return" in message:
                todo.pop(0)

    def close(self) -> None:
        """Hang up."""
        self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
