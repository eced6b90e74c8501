"""Where a machine that comes is heard: sockets for its disks and its memory, to which the other host connects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tinamou.control import Session
from tinamou.errors import ControlError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.launch.handover import listening
from tinamou.snapshots.shared_key import KEY, shared_key
from tinamou.state.record import Record

__all__ = ["Direct", "Ends", "accepted", "ends"]

_PATHS = ("nbd.sock", "memory.sock")


@dataclass(frozen=True)
class Direct:
    """Listening TCP sockets, for disks and memory; who has ``key`` (hexadecimal) and comes from ``peer`` is let in."""

    disks: socket.socket
    memory: socket.socket
    peer: str
    key: str


@dataclass(frozen=True)
class Ends:
    """What listens. ``paths`` are the sockets' where they are files of this host, for ssh to lead to; else ``key`` names the
    key that QEMU asks for. ``why`` is what kept it from being direct."""

    disks: socket.socket
    memory: socket.socket
    paths: tuple[str, ...] = ()
    peer: str = ""
    key: str = ""
    why: str = ""

    def close(self) -> None:
        """Nobody is heard any more, but by those who have the sockets from here."""
        self.disks.close()
        self.memory.close()


@contextlib.asynccontextmanager
async def ends(session: Session, record: Record, direct: Direct | None) -> AsyncIterator[Ends]:
    """Where that QEMU is to be reached, for the block: directly, or where it cannot by files in the machine's folder."""
    why = ""
    async with contextlib.AsyncExitStack() as stack:
        if direct is not None:
            try:
                folder = record.file(files.MOVING)
                await stack.enter_async_context(shared_key(session, folder, record.uid, direct.key, "server"))
            except ControlError as error:
                why = error.why or error.what
        found = _by_path(record, why) if direct is None or why else Ends(direct.disks, direct.memory, (), direct.peer, KEY)
        try:
            yield found
        finally:
            found.close()
            for path in found.paths:
                Path(path).unlink(missing_ok=True)  # noqa: ASYNC240


def _by_path(record: Record, why: str) -> Ends:
    paths = tuple(str(record.file(name)) for name in _PATHS)
    disks, memory = (socket.socket(fileno=listening(path)) for path in paths)
    return Ends(disks, memory, paths, why=why)


async def accepted(listener: socket.socket, peer: str) -> socket.socket:
    """The next who connects from that address, or at all where it is empty; others are hung up on."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    while True:
        connected, address = await loop.sock_accept(listener)
        if not peer or address[0] == peer:
            return connected
        connected.close()
