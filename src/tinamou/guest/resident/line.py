"""The host's end of the resident's line: identity and commands, one at a time."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Self

from tinamou.errors import GuestError, TimeLimitError
from tinamou.guest.resident.frames import HEADER, LARGEST, command, frame, identity
from tinamou.late import dataclass
from tinamou.system.sockets import connect_unix

if TYPE_CHECKING:
    import asyncio

    from tinamou.guest.agent import Completed

__all__ = ["PORT", "Identity", "Line", "LineError"]

PORT = "org.tinamou.resident.0"
"""The name of the virtio-serial port the resident listens on."""

LARGEST_OUTPUT = 16 << 20
"""Bytes kept of each stream of a command; what a guest sends beyond is read and dropped, as its agent does."""

_WITH_PAYLOAD = "OEDF"
"""The frames to the host that are never empty."""

BECOME_SECONDS = 60.0
"""How long a guest may take to become another."""

FRESH_SECONDS = 0.5
"""No guest restarts within this time."""


class LineError(GuestError):
    """The resident does not answer, or the line to it ended."""


@dataclass(frozen=True)
class Identity:
    """What makes a fork a machine of its own: see `frames.identity`; entropy and time are always fresh."""

    hostname: str = ""
    macs: Mapping[bytes, bytes] = field(default_factory=dict)
    files: tuple[tuple[str, int, bytes], ...] = ()
    signals: tuple[tuple[str, int], ...] = ()


class Line:
    """A connected line. A machine's resident serves one line at a time, so it belongs to the process that forked it."""

    def __init__(self, path: str) -> None:
        """Connect now, without waiting; QEMU may not have started yet. Raises NotListeningError, OSError."""
        self._begin(connect_unix(path))

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket: socket.socket | None = connection
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._lock: asyncio.Lock | None = None
        self._owed: list[bytes] = []
        self._after: asyncio.Task[None] | None = None
        self._heard = time.monotonic()

    @classmethod
    def adopted(cls, descriptor: int) -> Self:
        """A line another process opened and gave away with `hand_over`."""
        line = cls.__new__(cls)
        line._begin(socket.socket(fileno=descriptor))
        return line

    def hand_over(self) -> int:
        """A descriptor to give to another process, while nothing is under way; the line ends here."""
        connection = self._writer.get_extra_info("socket") if self._writer is not None else self._socket
        if connection is None or self.owes:
            raise LineError("The line to the guest's resident was closed, or is in use")
        descriptor = os.dup(connection.fileno())
        self.close()
        return descriptor

    @property
    def fresh(self) -> bool:
        """Whether the resident was heard so lately that the guest cannot have restarted since, or is to answer now."""
        return self.owes or time.monotonic() - self._heard < FRESH_SECONDS

    @property
    def free(self) -> bool:
        """Whether a command can be run now."""
        return self._socket is not None and not (self._lock and self._lock.locked())

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        elif self._socket is not None:
            self._socket.close()
        self._socket = self._reader = self._writer = None

    async def hello(self, timeout: float = 10.0) -> None:
        """Return when the resident has answered. Raises LineError after ``timeout`` seconds."""
        import asyncio

        nonce = os.urandom(8)
        async with self._locked():
            try:
                async with asyncio.timeout(timeout):
                    await self._settled(timeout)
                    await self._send("H", nonce)
                    while await self._receive() != ("H", nonce):
                        pass
            except TimeoutError:
                raise LineError("The guest's resident does not answer", why=f"nothing was heard for {timeout:g} s") from None

    async def become(self, who: Identity, timeout: float = BECOME_SECONDS) -> None:
        """Reseed the guest's random numbers, set its clock, and make it ``who``. Raises LineError, GuestError."""
        await self.begin_to_become(who)
        await self.settle(timeout)

    async def begin_to_become(self, who: Identity, *, after: asyncio.Task[None] | None = None) -> None:
        """The same without waiting until it is so: what the resident is asked next comes after it. Raises LineError.

        Whether it worked is told by what is asked next, or by `settle`; both raise what ``after`` raises, which lets the
        guest run.
        """
        records = identity(
            entropy=os.urandom(64),
            time_ns=time.time_ns(),
            hostname=who.hostname,
            macs=who.macs,
            files=who.files,
            signals=who.signals,
        )
        async with self._locked():
            await self._settled(BECOME_SECONDS)
            await self._send("I", b"".join(records))
            self._owed, self._after = records, after

    @property
    def owes(self) -> bool:
        """Whether the guest was told who to be, and has not answered yet."""
        return bool(self._owed)

    async def settle(self, timeout: float = BECOME_SECONDS) -> None:
        """Return when the guest is who it was last told to be. Raises LineError, GuestError when it is not."""
        async with self._locked():
            await self._settled(timeout)

    async def _settled(self, timeout: float) -> None:
        """Read the answer that is owed. If it is not what it must be, the line ends: what was sent since is answered too."""
        import asyncio

        if not self._owed:
            return
        records, self._owed = self._owed, []
        try:
            async with asyncio.timeout(timeout):
                if self._after is not None:
                    await asyncio.shield(self._after)
                kind, results = await self._receive()
        except TimeoutError:
            self.close()
            why = f"its resident said nothing for {timeout:g} s"
            raise LineError("The guest did not take its new identity", why=why) from None
        except asyncio.CancelledError:
            self._owed = records
            raise
        failed = [f"{chr(r[0])}: {os.strerror(code)}" for r, code in zip(records, results, strict=False) if code]
        failed = [one for one in failed if not one.startswith("s")]
        if kind != "I" or len(results) != len(records) or failed:
            self.close()
            raise GuestError("The guest did not take its new identity", why="; ".join(failed) or f"it answered {kind!r}")

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end; when ``timeout`` seconds pass or the caller is cancelled it is killed."""
        import asyncio

        payload = command(argv, environment, input or b"")
        async with self._locked():
            await self._send("X", payload)
            try:
                async with asyncio.timeout(timeout):
                    await self._settled(BECOME_SECONDS)
                    return await self._finish(argv)
            except TimeoutError:
                await self._kill(argv)
                raise TimeLimitError(
                    f"The command {' '.join(argv)} did not end within {timeout:g} s", why="it was killed in the guest"
                ) from None
            except asyncio.CancelledError:
                await asyncio.shield(self._kill(argv))
                raise

    async def _kill(self, argv: Sequence[str]) -> None:
        import asyncio

        await self._send("K", b"")
        try:
            async with asyncio.timeout(5.0):
                await self._settled(5.0)
                await self._finish(argv)
        except (TimeoutError, GuestError):
            self.close()

    async def _finish(self, argv: Sequence[str]) -> Completed:
        from tinamou.guest.agent import Completed

        streams = {"O": bytearray(), "E": bytearray()}
        truncated = False
        while True:
            kind, payload = await self._receive()
            if kind in streams:
                streams[kind] += payload[: max(LARGEST_OUTPUT - len(streams[kind]), 0)]
                truncated = truncated or len(streams[kind]) == LARGEST_OUTPUT
            elif kind == "D":
                return Completed(self._status(payload), bytes(streams["O"]), bytes(streams["E"]), truncated)
            elif kind == "F":
                raise GuestError(f"The guest could not start {argv[0]}", why=os.strerror(payload[0]))
            else:
                raise self._no_frame(f"a frame {kind!r} where a command runs")

    def _status(self, payload: bytes) -> int:
        """The exit status in the frame that ends a command, -N for signal N (source: waitpid(2))."""
        try:
            return os.waitstatus_to_exitcode(struct.unpack("<i", payload)[0])
        except (struct.error, ValueError):
            raise self._no_frame(f"a command's end as {payload[:8]!r}") from None

    def _no_frame(self, what: str) -> LineError:
        """The error for what no resident sends; the line ends, since nothing after it can be understood."""
        self.close()
        return LineError("The guest's resident sends what is no frame", why=what)

    def _locked(self) -> asyncio.Lock:
        import asyncio

        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        import asyncio

        if self._reader is None or self._writer is None:
            if self._socket is None:
                raise LineError("The line to the guest's resident was closed")
            self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        return self._reader, self._writer

    async def _send(self, kind: str, payload: bytes) -> None:
        _, writer = await self._open()
        writer.write(frame(kind, payload))
        try:
            await writer.drain()
        except OSError as reason:
            raise self._over(reason) from reason

    async def _receive(self) -> tuple[str, bytes]:
        import asyncio

        reader, _ = await self._open()
        try:
            kind, length = HEADER.unpack(await reader.readexactly(HEADER.size))
            self._heard = time.monotonic()
            if length > LARGEST or (not length and chr(kind) in _WITH_PAYLOAD):
                raise self._no_frame(f"a frame {chr(kind)!r} of {length} bytes")
            return chr(kind), await reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as reason:
            raise self._over(reason) from reason

    def _over(self, reason: Exception) -> LineError:
        self.close()
        return LineError("The line to the guest's resident ended", why=f"QEMU exited, or was killed ({reason})")
