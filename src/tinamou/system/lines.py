"""Lines that come from a peer nobody trusts: how long each is, and how deep the JSON in it, is bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import asyncio

__all__ = ["PIECE", "Lines", "json_of"]

PIECE = 64 << 10
"""What is read at once; the limit to give a stream, which keeps twice as much."""

_DEEPEST = 512
"""A chain of 200 images is spelled out by QEMU as that many objects in each other, twice."""

_MOST_OBJECTS = 250_000
"""Objects and arrays in one line: each takes a hundred times the memory of its two letters."""


class Lines:
    """The lines of a stream, whose end of line is not part of them."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    async def next(self, most: Callable[[], int]) -> bytes:
        """The next line. Raises EOFError at the end, OSError, ValueError for one of more than ``most()`` bytes."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > most():
                raise ValueError(f"a line of more than {most()} bytes")
            piece = await self._reader.read(PIECE)
            if not piece:
                raise EOFError
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def json_of(line: bytes) -> object:
    """The JSON in a line. Raises ValueError for what is none, is too much or too deep, or has halves of characters in it."""
    if line.count(b"{") + line.count(b"[") > _MOST_OBJECTS:
        raise ValueError(f"it has more than {_MOST_OBJECTS} objects")
    try:
        value: object = _decoder.decode(line.decode())
        if b"\\u" in line:  # half a character cannot even be printed
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for one in level for inner in _inside(one) if isinstance(inner, dict | list)]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
