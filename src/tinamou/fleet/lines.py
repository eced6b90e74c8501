"""What carries a machine's bytes to another host, and why: TCP connections of QEMU's own, encrypted by it, or ssh.

Directly it is several times as fast: ssh's window and its two processes bound what goes through it. ssh needs no open port,
and packs where the line is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

from tinamou.errors import HostError, SpecError
from tinamou.fleet import remote
from tinamou.fleet.hosts import Host
from tinamou.late import dataclass
from tinamou.machine.ends import accepted
from tinamou.system.closing import IfFailed
from tinamou.system.sockets import connect_unix

__all__ = [
    "LINES",
    "Carrier",
    "Line",
    "Link",
    "Listeners",
    "by_ssh",
    "chosen",
    "direct",
    "drained",
    "listeners",
    "measured",
    "toward",
]

Line = Literal["tls", "ssh", "packed"]
LINES = ("auto", "tls", "ssh", "packed")
PORTS = range(49152, 49216)
"""Where one listens for a move: dynamic ports (RFC 6335), the ones that firewalls are opened at for libvirt's already."""
SLOW = 12_500_000
"""Bytes a second under which packing is worth its time: 100 Mbit/s, and zlib packs 20 to 60 MB/s on one core."""
_CONNECT_SECONDS, _MEASURE_SECONDS = 1.0, 5.0
_FIRST, _MORE = 128 << 10, 4 << 20
_CRAWLS = 1e6
"""Bytes a second under which no more is sent to find it out."""
_LOST_MS, _ALIVE_SECONDS, _ALIVE_COUNT = 15_000, 5, 3
"""When a connection on which nothing comes back is over, as it is for ssh (`tinamou.fleet.ssh`)."""
_TCP_INFO_RTT = 68
"""Where tcpi_rtt is in struct tcp_info, in microseconds (source: linux/tcp.h)."""


@dataclass(frozen=True)
class Link:
    """``rate`` in bytes a second, 0 where no connection of its own can be made, for the reason ``why``."""

    rate: float
    why: str = ""


@dataclass(frozen=True)
class Listeners:
    """Two sockets of this host that listen to ``peer`` alone."""

    disks: socket.socket
    memory: socket.socket
    peer: str

    @property
    def ports(self) -> tuple[int, int]:
        """Their numbers: of the disks', of the memory's."""
        return self.disks.getsockname()[1], self.memory.getsockname()[1]

    def close(self) -> None:
        """Nobody is heard any more."""
        self.disks.close()
        self.memory.close()


def chosen(asked: str, link: Link) -> tuple[Line, str]:
    """What is to carry a machine over that link, and why. Raises SpecError for what is asked for and cannot be."""
    if asked in ("ssh", "packed"):
        return ("ssh" if asked == "ssh" else "packed"), "it was asked for"
    if not link.rate:
        if asked == "tls":
            raise SpecError("no connection of its own can be made for the machine", fix=f"--line ssh; {link.why}")
        return "ssh", f"no connection of its own can be made: {link.why}"
    speed = f"{link.rate / 1e6:.1f} MB/s were measured"
    if link.rate < SLOW and asked != "tls":
        return "packed", f"{speed}, and packing is worth its time below {SLOW / 1e6:g}"
    return "tls", "it was asked for" if asked == "tls" else speed


def toward(host: Host) -> tuple[str, str]:
    """The address by which a host is reached, and this host's own on the way there, as numbers. Raises OSError."""
    kind, _, _, _, address = socket.getaddrinfo(host.address, host.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # nothing is sent
        return str(address[0]), str(probe.getsockname()[0])


def listeners(address: str, peer: str) -> Listeners:
    """Sockets that listen at an address. Raises OSError for one that is not this host's, or where no port is free."""
    first = _listening(address)
    try:
        return Listeners(first, _listening(address), peer)
    except OSError:
        first.close()
        raise


def _listening(address: str) -> socket.socket:
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in PORTS:
        listener = socket.socket(kind, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _mortal(listener)
            listener.bind((address, port))
            listener.listen(16)
        except OSError as error:
            listener.close()
            last = error
        else:
            return listener
    raise last


def _mortal(connection: socket.socket) -> None:
    """Have a connection end whose other side is gone: QEMU would wait for a quarter of an hour."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_USER_TIMEOUT, _LOST_MS),
        (socket.TCP_KEEPIDLE, _ALIVE_SECONDS),
        (socket.TCP_KEEPINTVL, _ALIVE_SECONDS),
        (socket.TCP_KEEPCNT, _ALIVE_COUNT),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def drained(there: Listeners) -> None:
    """Take what `measured` sends, for as long as it comes; who sent it is hung up on then."""
    loop = asyncio.get_running_loop()
    while True:
        with await accepted(there.memory, there.peer) as connected:
            connected.setblocking(False)
            with contextlib.suppress(OSError):
                while await loop.sock_recv(connected, 1 << 18):
                    pass


async def measured(address: str, port: int) -> Link:
    """How fast the link to that port of another host is, where `drained` listens; why there is none."""
    try:
        first = await _sent(address, port, _FIRST)
        return Link(first if first < _CRAWLS else await _sent(address, port, _MORE))
    except TimeoutError:
        return Link(0.0, f"nothing came back from {address}, port {port}: is it behind a firewall?")
    except OSError as error:
        return Link(0.0, f"{address}, port {port}: {error.strerror or error}")


async def _sent(address: str, port: int, size: int) -> float:
    """Bytes a second, from the first that goes to the other side's word that it had the last, less one round trip."""
    with await _connected(address, port) as line:
        loop, data = asyncio.get_running_loop(), os.urandom(size)
        began = time.monotonic()
        try:
            async with asyncio.timeout(_MEASURE_SECONDS):
                await loop.sock_sendall(line, data)
                line.shutdown(socket.SHUT_WR)
                await loop.sock_recv(line, 1)
        except TimeoutError:
            return size / _MEASURE_SECONDS
        trip: int = struct.unpack_from("I", line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), _TCP_INFO_RTT)[0]
        return size / max(time.monotonic() - began - trip / 1e6, 1e-6)


async def _connected(address: str, port: int) -> socket.socket:
    line = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with IfFailed(line.close):
        line.setblocking(False)
        _mortal(line)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(line, (address, port))
    return line


class Carrier:
    """Connections to the other side, for QEMU to have; those that it has end with `close`, whatever QEMU does."""

    def __init__(self, connect: Callable[[Literal["disks", "memory"]], Awaitable[socket.socket]]) -> None:
        self._connect = connect
        self._made: list[socket.socket] = []

    async def disks(self) -> socket.socket:
        """A new connection to where disks go. Raises OSError."""
        return await self._to("disks")

    async def memory(self) -> socket.socket:
        """The one to where the memory goes. Raises OSError."""
        return await self._to("memory")

    async def _to(self, what: Literal["disks", "memory"]) -> socket.socket:
        connection = await self._connect(what)
        connection.setblocking(True)  # as QEMU wants to set that itself
        self._made.append(connection)
        return connection

    def close(self) -> None:
        """End them: QEMU, which has copies, hears of it at once."""
        for connection in self._made:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@contextlib.asynccontextmanager
async def direct(address: str, disks: int, memory: int) -> AsyncIterator[Carrier]:
    """Connections to those ports, for the block."""
    ports = {"disks": disks, "memory": memory}
    with contextlib.closing(Carrier(lambda what: _connected(address, ports[what]))) as carrier:
        yield carrier


@contextlib.asynccontextmanager
async def by_ssh(host: Host, folder: Path, disks: str, memory: str, *, packed: bool) -> AsyncIterator[Carrier]:
    """Connections through ssh to those sockets there, for the block; ``folder`` is made for it, and is gone after it."""
    shutil.rmtree(folder, ignore_errors=True)  # of a move that was killed
    folder.mkdir(mode=0o700)  # noqa: ASYNC240
    here = {"disks": folder / "disks", "memory": folder / "memory"}

    async def connect(what: Literal["disks", "memory"]) -> socket.socket:
        return connect_unix(str(here[what]))

    carried = False
    try:
        async with remote.forward(host, {here["disks"]: disks, here["memory"]: memory}, packed=packed):
            with contextlib.closing(Carrier(connect)) as carrier:
                yield carrier
            carried = True
    except HostError:
        if not carried:  # else all has gone through, and the line was lost while it was hung up
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
