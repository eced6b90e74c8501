"""A line that is hung up while it is being opened leaves nothing behind: no socket, and no word of the event loop's."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tinamou.control.wire import Wire


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("steps", range(4))
def test_hung_up_while_it_is_opened(cancelled: bool, steps: int) -> None:
    """At each of the event loop's steps, as Ctrl-C finds it."""
    complaints: list[dict[str, Any]] = []

    async def talk() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            wire = Wire(ours)
            receiving = asyncio.create_task(wire.receive())
            for _ in range(steps):
                await asyncio.sleep(0)
            wire.close()
            if cancelled:
                receiving.cancel()
            with pytest.raises((asyncio.CancelledError, OSError, EOFError)):
                await asyncio.wait_for(receiving, 60)
            wire.close()
            for _ in range(4):
                await asyncio.sleep(0)
            assert ours.fileno() == -1

    asyncio.run(talk())
    assert complaints == []
