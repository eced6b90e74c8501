"""The other side of a move, called before anything of it is planned: ssh logs in, and tinamou starts there, meanwhile.

It loads little: `tinamou move` calls first, and loads what moves a machine while the other side comes up.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tinamou.fleet import remote
from tinamou.fleet.hosts import Host
from tinamou.fleet.remote import Pipe

__all__ = ["Call", "called"]


class Call:
    """A line to a `tinamou receive` that nobody has spoken to yet; who never takes it hangs up with `called`."""

    def __init__(self, pipe: Pipe, held: contextlib.AsyncExitStack) -> None:
        self._pipe = pipe
        self._held = held

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Pipe]:
        """The line, for the block, which ends it; raises what `remote.stream` does, as it was not opened, or lost."""
        async with self._held.pop_all():
            yield self._pipe


@contextlib.asynccontextmanager
async def called(host: Host) -> AsyncIterator[Call]:
    """Call that host for a machine that is to move there. Nothing has begun there until something is said on the line."""
    async with contextlib.AsyncExitStack() as held:
        pipe = await held.enter_async_context(remote.stream(host, [*host.command, "receive"]))
        yield Call(pipe, held)
