"""What a tool tells while it works, and what its failure says to the model."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from tinamou.errors import TinamouError
from tinamou.images.progress import Progress

__all__ = ["said", "telling"]

P = ParamSpec("P")
T = TypeVar("T")
_BEAT_SECONDS = 5.0
"""A tool that has nothing to tell says how long it has been at it, so often: a client must see that it lives."""


def said(tool: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Let the model read what went wrong, why, and what to do: the library hides what other errors say."""

    @functools.wraps(tool)
    async def heard(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await tool(*arguments, **named)
        except (TinamouError, OSError, ValueError) as error:
            raise ToolError(str(error)) from error

    return heard


@contextlib.asynccontextmanager
async def telling(context: Context, what: str) -> AsyncIterator[Progress]:
    """A `Progress` whose words reach the client, from any thread; and a word about ``what`` every few seconds."""
    loop, words, began = asyncio.get_running_loop(), asyncio.Queue[tuple[str, float | None]](), time.monotonic()

    def progress(text: str, fraction: float | None) -> None:
        loop.call_soon_threadsafe(words.put_nowait, (text, fraction))

    async def tell() -> None:
        number = 0
        while True:
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    text, fraction = await words.get()
            except TimeoutError:
                text, fraction = f"{what}: {time.monotonic() - began:.0f} s", None
            number += 1
            share = "" if fraction is None else f" ({fraction:.0%})"
            await context.report_progress(number, None, f"{text}{share}")

    task = asyncio.create_task(tell())
    progress(what, None)
    try:
        yield progress
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
