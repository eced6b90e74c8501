"""The built-in probe: round trips and throughput between this host and a guest, through one TCP connection each.

The guest's end is a shell line with nothing but busybox's or netcat's ``nc``, or bash: it connects to the host where the
network leads out (user, passt), or waits for the host where it is on an interface of the host's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import statistics
import struct
import time
from collections.abc import Awaitable, Callable

from tinamou.errors import GuestError
from tinamou.late import dataclass

__all__ = ["Speed", "measure"]

Run = Callable[[str], Awaitable[object]]
_PORT = 5907
_PIECE = 256 << 10
_TRIPS_SECONDS = 60.0
_PATIENCE = 10.0
"""Seconds until a guest that does not connect counts as one that nothing leads to."""


@dataclass(frozen=True)
class Speed:
    """Milliseconds of a one-byte TCP round trip (median, 99th percentile), megabits a second into and out of the guest.

    ``busy_into`` and ``busy_out`` are virtual CPUs of the guest's that computed all the while: near their number, they are
    the limit.
    """

    median: float
    p99: float
    into: float
    out_of: float
    trips: int = 0
    busy_into: float = 0.0
    busy_out: float = 0.0


async def measure(
    run: Run,
    address: str,
    *,
    listen: str = "",
    trips: int = 200,
    seconds: float = 2.0,
    computed: Callable[[], float] = lambda: 0.0,
) -> Speed:
    """Measure; ``run`` starts a shell line in the guest and does not wait for it, ``computed`` is its CPUs' seconds so far.

    With ``listen`` (an address of this host) the guest connects to ``address``, which leads there; without, this host
    connects to the guest at ``address``. Raises GuestError when no connection comes about.
    """
    try:
        async with _Meeting(run, address, listen) as meet:
            echo = await meet("cat")
            times = await asyncio.to_thread(_round_trips, echo, trips)
            sink = await meet("cat >/dev/null")
            into, busy_into = await asyncio.to_thread(_watched, _pour, sink, seconds, computed)
            source = await meet("cat /dev/zero")
            out_of, busy_out = await asyncio.to_thread(_watched, _drain, source, seconds, computed)
    except OSError as reason:
        why = f"the connection to it broke: {reason.strerror or reason}"
        raise GuestError("The guest does not take part in the measurement", why=why) from reason
    ordered = sorted(times)
    slowest = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Speed(statistics.median(ordered), slowest, into, out_of, trips, busy_into, busy_out)


class _Meeting:
    """Connections to programs in the guest, one after another, each on a port of its own."""

    def __init__(self, run: Run, address: str, listen: str) -> None:
        self._run, self._address, self._listen = run, address, listen
        self._port = _PORT
        self._open: list[socket.socket] = []

    async def __aenter__(self) -> Callable[[str], Awaitable[socket.socket]]:
        return self._meet

    async def __aexit__(self, *_: object) -> None:
        for one in self._open:
            one.close()

    async def _meet(self, program: str) -> socket.socket:
        if self._listen:
            return await asyncio.wait_for(self._called(program), 30)
        self._port += 1
        quiet = ">/dev/null 2>&1 </dev/null"
        await self._run(f"(setsid nc -l -p {self._port} -e sh -c '{program}') {quiet} &")
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return self._kept(await asyncio.to_thread(socket.create_connection, (self._address, self._port), 2))
            await asyncio.sleep(0.1)
        raise GuestError(f"{self._address} does not answer", why="the guest's interface may be down or without its address")

    async def _called(self, program: str) -> socket.socket:
        with socket.create_server((self._listen, 0)) as server:
            server.settimeout(_PATIENCE)
            port = server.getsockname()[1]
            await self._run(f"(setsid nc {self._address} {port} -e sh -c '{program}') >/dev/null 2>&1 </dev/null &")
            try:
                connection, _ = await asyncio.to_thread(server.accept)
            except TimeoutError:
                why = f"it was told to connect to {self._address}, port {port}"
                raise GuestError("the guest does not reach this host", why=why) from None
        return self._kept(connection)

    def _kept(self, connection: socket.socket) -> socket.socket:
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(connection)
        return connection


def _round_trips(connection: socket.socket, count: int) -> list[float]:
    times = []
    end = time.perf_counter() + _TRIPS_SECONDS
    for number in range(count + 10):
        start = time.perf_counter()
        if start > end:
            raise TimeoutError(f"{number} round trips took {_TRIPS_SECONDS:g} s")
        connection.sendall(b".")
        if not connection.recv(1):
            raise ConnectionError("it was closed")
        if number >= 10:
            times.append((time.perf_counter() - start) * 1000)
    connection.close()
    return times


def _watched(
    work: Callable[[socket.socket, float], float], connection: socket.socket, seconds: float, computed: Callable[[], float]
) -> tuple[float, float]:
    before, start = computed(), time.perf_counter()
    rate = work(connection, seconds)
    return rate, (computed() - before) / (time.perf_counter() - start)


def _pour(connection: socket.socket, seconds: float) -> float:
    """Megabits a second that the guest took; what still lies in this host's buffer when time is up is not counted."""
    data, sent, start = bytes(_PIECE), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        sent += connection.send(data)
    (waiting,) = struct.unpack("i", fcntl.ioctl(connection, 0x5411, struct.pack("i", 0)))
    connection.close()
    return float(sent - waiting) * 8 / elapsed / 1e6


def _drain(connection: socket.socket, seconds: float) -> float:
    got, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        piece = connection.recv(_PIECE)
        if not piece:
            break
        got += len(piece)
    connection.close()
    return got * 8 / max(elapsed, 1e-6) / 1e6
