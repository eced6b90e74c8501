"""Files of a guest through its agent, in pieces: read one, write one; no network needed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest.answers import said
from tinamou.guest.channel import AgentRefusedError, AgentSilentError

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["opened", "read", "read_pieces", "write", "write_piece"]

PIECE = 256 << 10
"""Bytes in one message: smaller ones are slower, larger ones are not faster, and others may speak between two."""


async def read(agent: Agent, path: str, *, limit: int = 64 << 20) -> bytes:
    """A whole file of the guest. Raises GuestError when it is larger than ``limit`` bytes, or cannot be read."""
    parts = []
    size = 0
    async for piece in read_pieces(agent, path):
        size += len(piece)
        if size > limit:
            raise GuestError(f"The file {path} in the guest is larger than {limit} bytes", fix="copy it: tinamou cp")
        parts.append(piece)
    return b"".join(parts)


async def read_pieces(agent: Agent, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
    """A file of the guest from the offset ``start`` on, piece by piece. Raises GuestError."""
    async with opened(agent, path, "r") as handle:
        if start:
            await agent.command("guest-file-seek", {"handle": handle, "offset": start, "whence": "set"})
        while True:
            answer = said.record(await agent.command("guest-file-read", {"handle": handle, "count": PIECE}))
            if said.number(answer, "count"):
                yield said.data(answer, "buf-b64", most=PIECE)
            if said.flag(answer, "eof") or not said.number(answer, "count"):
                return


async def write(agent: Agent, path: str, pieces: Iterable[bytes]) -> int:
    """Create or empty a file in the guest, fill it, and return its size in bytes. Raises GuestError."""
    size = 0
    async with opened(agent, path, "w") as handle:
        for piece in pieces:
            await asyncio.sleep(0)
            await write_piece(agent, path, handle, piece)
            size += len(piece)
        await agent.command("guest-file-flush", {"handle": handle})
    return size


async def write_piece(agent: Agent, path: str, handle: int, piece: bytes) -> None:
    """Write into an open file; ``path`` is for the error. Raises GuestError."""
    while piece:
        data = {"handle": handle, "buf-b64": base64.b64encode(piece).decode()}
        try:
            written = said.number(said.record(await agent.command("guest-file-write", data)), "count")
        except AgentRefusedError as refusal:
            raise GuestError(f"The file {path} could not be written in the guest", why=refusal.description) from refusal
        if written <= 0:
            raise GuestError(f"The file {path} could not be written in the guest", why="the agent wrote nothing")
        piece = piece[written:]


@contextlib.asynccontextmanager
async def opened(agent: Agent, path: str, mode: str) -> AsyncIterator[int]:
    """An open file of the guest; closed there on every way out, for the agent would keep it open for ever."""
    try:
        handle = await agent.command("guest-file-open", {"path": path, "mode": mode})
    except AgentRefusedError as refusal:
        raise GuestError(f"The file {path} could not be opened in the guest", why=refusal.description) from refusal
    if not isinstance(handle, int):
        raise GuestError(f"The file {path} could not be opened in the guest", why=f"the agent answered {handle!r}")
    try:
        yield handle
    finally:
        closing = asyncio.ensure_future(agent.command("guest-file-close", {"handle": handle}))
        with contextlib.suppress(AgentRefusedError, AgentSilentError):
            await asyncio.shield(closing)
