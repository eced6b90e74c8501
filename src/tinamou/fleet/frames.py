"""What two tinamous say to each other while a machine goes from one to the other: small tables, with bytes after them.

Each frame is two lengths in decimal digits and a newline, JSON of the first, bytes of the second. Who says nothing for
`SILENCE` seconds is gone: both say that they are there every `BEAT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from tinamou.errors import ControlError, StateError, TinamouError, error_from

__all__ = ["BEAT", "SILENCE", "Frames", "LostError"]

SILENCE, BEAT = 60.0, 2.0
_LONGEST, _PIECE = 64 << 20, 1 << 20
_MOST = 4 << 30
_ALIVE, _ERROR = "alive", "error"

T = TypeVar("T")


class LostError(ControlError):
    """The line to the other host is lost, or it says nothing any more."""


class Frames:
    """A line to the other side: ``reader`` and ``writer`` are the two directions of a pipe."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def say(self, what: str, payload: bytes = b"", **data: Any) -> None:
        """Send one frame. Raises LostError."""
        text = json.dumps({"what": what, **data}).encode()
        try:
            async with self._turn:
                self._writer.write(b"%d %d\n" % (len(text), len(payload)) + text)
                for start in range(0, len(payload), _PIECE):
                    self._writer.write(payload[start : start + _PIECE])
                    await self._writer.drain()
                await self._writer.drain()
        except OSError as error:
            raise LostError("the line to the other host is lost", why=str(error)) from error

    async def fail(self, error: TinamouError) -> None:
        """Tell the other side why it ends; where that cannot be told, the line's end tells it."""
        with contextlib.suppress(LostError):
            await self.say(_ERROR, said=error.to_json())

    async def hear(self, what: str, seconds: float = SILENCE) -> tuple[dict[str, Any], bytes]:
        """The next frame, which must be of that kind; the other side must give a sign of life every so many seconds.

        Raises LostError, StateError for another kind, and the error the other side says.
        """
        return await self.hear_any((what,), seconds)

    async def hear_any(self, kinds: Sequence[str], seconds: float = SILENCE) -> tuple[dict[str, Any], bytes]:
        """As `hear`, for one of several kinds."""
        while True:
            data, payload = await self._next(seconds)
            if data["what"] == _ERROR:
                raise error_from(data.get("said"))
            if data["what"] in kinds:
                return data, payload
            if data["what"] != _ALIVE:
                raise StateError(
                    "the other host says what is not its turn", why=f"{str(data['what'])[:40]}, not {' or '.join(kinds)}"
                )

    async def _next(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        try:
            async with asyncio.timeout(seconds):
                head = await self._reader.readuntil(b"\n")
                length, more = map(int, head.split())
                if not 0 <= length <= _LONGEST or not 0 <= more <= _MOST:
                    raise ValueError(f"{length} and {more} bytes")
                data = json.loads(await self._reader.readexactly(length))
            payload = bytearray()
            while len(payload) < more:
                async with asyncio.timeout(seconds):
                    piece = await self._reader.read(min(_PIECE, more - len(payload)))
                if not piece:
                    raise EOFError("it ends within a frame")
                payload += piece
            if not isinstance(data, dict) or not isinstance(data.get("what"), str):
                raise ValueError("no frame")
            return data, bytes(payload)
        except TimeoutError:
            raise LostError("the other host says nothing", why=f"for {seconds:g} s") from None
        except (EOFError, OSError) as error:
            raise LostError("the line to the other host has ended", why=str(error)) from error
        except (ValueError, RecursionError, asyncio.LimitOverrunError) as error:
            raise StateError("the other host says what no tinamou says", why=str(error)[:200]) from error

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Say that this side is there, for as long as the block takes."""
        task = asyncio.ensure_future(self._beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _beat(self) -> None:
        with contextlib.suppress(LostError):  # who listens finds that out as well
            while True:
                await self.say(_ALIVE)
                await asyncio.sleep(BEAT)

    async def meanwhile(self, work: Coroutine[Any, Any, T], hearing: asyncio.Future[Any]) -> T:
        """The result of the work, which is cancelled where hearing ends with an error first: that is raised then."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task, hearing], return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and hearing.done() and hearing.exception() is not None:
                hearing.result()
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
