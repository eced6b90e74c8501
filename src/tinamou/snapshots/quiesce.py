"""Holding the guest's file systems still for the moment of a snapshot, and thawing them by all means after a deadline.

A small process of its own watches over the freeze: when the command that froze the guest is killed, or the deadline passes,
it thaws the guest itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tinamou.errors import GuestError
from tinamou.facts import files
from tinamou.guest.agent import Agent
from tinamou.system.closing import Closing
from tinamou.system.exec import clean_environment
from tinamou.system.loop_thread import in_thread
from tinamou.system.spawn import Process, end, spawn

__all__ = ["frozen"]


@contextlib.asynccontextmanager
async def frozen(directory: Path, deadline: float) -> AsyncIterator[bool]:
    """File systems frozen inside the block, thawed after it, at the latest ``deadline`` seconds after it began.

    Raises GuestError when the agent does not freeze in time or had to be thawed before the block was done; then what was
    done inside is not consistent and must not pass for it.
    """
    socket = directory / files.AGENT
    watcher, pipe = _watch(socket, deadline)
    agent = Agent(str(socket), timeout=deadline)
    try:
        async with asyncio.timeout(deadline):
            async with agent.frozen():
                yield True
    except TimeoutError:
        raise GuestError(
            f"the guest did not hold still within {deadline:g} s",
            why="its file systems were thawed again",
            fix="try again when it is less busy, give it longer with --deadline, or leave out --quiesce",
        ) from None
    finally:
        os.write(pipe, b".")
        os.close(pipe)
        await in_thread(end, watcher, grace=1.0)
        await agent.close()


def _watch(socket: Path, deadline: float) -> tuple[Process, int]:
    """Start the watcher; it hears of our end by the pipe, whose other end only we hold."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).with_name("thaw_watch.py")),
        str(read),
        str(socket),
        f"{deadline:g}",
    ]
    with Closing(read):
        log = str(socket.with_name("thaw.log"))
        return spawn(argv, log=log, inherit=[read], environment=clean_environment()), write
