"""The other side of a move, called before anything of it is planned: ssh logs in, and tinamou starts there, meanwhile.

It loads little: `tinamou move` calls first, and loads what moves a machine while the other side comes up.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tinamou.fleet import remote
from tinamou.fleet.frames import Frames, LostError
from tinamou.fleet.hosts import Host

__all__ = ["Call", "called"]


class Call:
    """A line to a `tinamou receive` that nobody has spoken to yet; who never takes it hangs up with `called`."""

    def __init__(self, frames: Frames, held: contextlib.AsyncExitStack) -> None:
        self._frames = frames
        self._held = held

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Frames]:
        """The line, for the block, which ends it. One that was not opened, or is lost, raises what `remote.stream` does,
        which says why."""
        lost: LostError | None = None
        async with self._held.pop_all():
            try:
                yield self._frames
            except LostError as error:
                lost = error
        if lost is not None:
            raise lost


@contextlib.asynccontextmanager
async def called(host: Host) -> AsyncIterator[Call]:
    """Call that host for a machine that is to move there. Nothing has begun there until something is said on the line."""
    async with contextlib.AsyncExitStack() as held:
        pipe = await held.enter_async_context(remote.stream(host, [*host.command, "receive"]))
        frames = Frames(pipe.reader, pipe.writer)
        await held.enter_async_context(frames.beating())
        yield Call(frames, held)
