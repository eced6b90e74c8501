"""What a guest sends or takes, bounded: never more than a limit, never waited for longer than a guest at work would take."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from tinamou.errors import GuestError, TimeLimitError

__all__ = ["PATIENCE_SECONDS", "CutShortError", "Feed", "Line", "Ticker"]

PATIENCE_SECONDS = 120.0
"""In this time at least `_LEAST` bytes must pass; a guest under emulation on a busy host passes a thousand times as many."""

_LEAST = 64 << 10
_LOOK_SECONDS = 1.0
_PIECE = 1 << 20
_LONGEST_LINE = 8192


class CutShortError(GuestError):
    """What a guest sent, or took, ended before its end."""


class Ticker:
    """Ends the wait for a guest that passes too little: counts what passes, and the time it was waited for."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._waited = 0.0
        self._passed = 0

    def count(self, passed: int, seconds: float) -> None:
        """So many bytes went through after so long a wait. Raises TimeLimitError when it was too long."""
        self._passed += passed
        self._waited += seconds
        if self._passed >= _LEAST:
            self._passed, self._waited = 0, 0.0
        if self._waited >= self._patience:
            why = f"fewer than {_LEAST >> 10} KiB passed in {self._patience:g} s"
            raise TimeLimitError("The guest does not go on with the copy", why=why, fix="look at it: tinamou logs NAME")


class Line:
    """The host's end of a line to the guest, for one thread; another may ``end`` it."""

    def __init__(self, end: socket.socket, patience: float = PATIENCE_SECONDS) -> None:
        self._end = end
        self._end.settimeout(_LOOK_SECONDS)
        self._ticker = Ticker(patience)
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether it was ended."""
        return self._over.is_set()

    def receive(self, count: int) -> bytes:
        """Up to ``count`` bytes; none when the line was ended. Raises TimeLimitError."""
        while not self.over:
            began = time.monotonic()
            try:
                data = self._end.recv(count)
            except TimeoutError:
                self._ticker.count(0, time.monotonic() - began)
                continue
            except OSError:
                break
            self._ticker.count(len(data), time.monotonic() - began)
            return data
        return b""

    def send(self, data: bytes) -> None:
        """All of it. Raises CutShortError when the line was ended, TimeLimitError."""
        left = memoryview(data)
        while left or self.over:
            began = time.monotonic()
            try:
                count = 0 if self.over else self._end.send(left[:_PIECE])
            except TimeoutError:
                self._ticker.count(0, time.monotonic() - began)
                continue
            except OSError:
                count = 0
            if not count:
                raise CutShortError("The guest did not take all of it")
            self._ticker.count(count, time.monotonic() - began)
            left = left[count:]

    def end(self) -> None:
        """Nothing passes any more; who waits at this end is restored up."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)


class Feed:
    """Bytes of a guest by way of ``receive``, which gives at least one of them, or none at the end.

    ``limit`` bounds them all, ``moved`` hears how many there were so far, ``over`` says that nobody wants them any more.
    """

    def __init__(
        self,
        receive: Callable[[int], bytes],
        limit: int,
        moved: Callable[[int], None] = lambda _count: None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._receive = receive
        self._limit = limit
        self.over = over
        self._moved = moved
        self._ahead = bytearray()
        self.count: int = 0

    def peek(self, count: int) -> bytes:
        """The next bytes, which are still to be taken; fewer at the end. Raises GuestError."""
        while len(self._ahead) < count and self._more():
            pass
        return bytes(self._ahead[:count])

    def _more(self) -> bool:
        """Whether anything came."""
        piece = self._receive(_PIECE)
        self.count += len(piece)
        if self.count > self._limit:
            fix = "allow more, if the guest is trusted with that: --limit SIZE"
            raise GuestError("The guest sends more than it may", why=f"more than {self._limit} bytes arrived", fix=fix)
        self._ahead += piece
        self._moved(self.count)
        return bool(piece)

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises CutShortError, GuestError."""
        piece = self.peek(count)
        if len(piece) < count:
            why = f"{count - len(piece)} bytes and more are missing"
            raise CutShortError("What the guest sends ends too early", why=why)
        del self._ahead[:count]
        return piece

    def line(self) -> bytes:
        """A line without its end. Raises CutShortError, GuestError for one that is too long."""
        while (end := self._ahead.find(b"\n", 0, _LONGEST_LINE)) < 0:
            if len(self._ahead) >= _LONGEST_LINE:
                why = f"a line begins with {bytes(self._ahead[:60])!r}"
                raise GuestError("The guest sends what is no copy", why=why)
            if not self._more():
                raise CutShortError("What the guest sends ends too early", why="in the middle of a line")
        text = bytes(self._ahead[:end])
        del self._ahead[: end + 1]
        return text
