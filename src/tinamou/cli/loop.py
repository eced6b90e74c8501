"""Runs a command's asynchronous work so that a request to end (SIGTERM, SIGHUP) cancels it and is cleaned up after."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_until_done"]

T = TypeVar("T")


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """The work's result; on SIGTERM or SIGHUP it is cancelled, and the process ends with 128 + the signal's number."""
    import asyncio

    heeded: list[int] = []

    async def heeding() -> T | None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            heeded.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end, number)
        try:
            return await work
        except asyncio.CancelledError:
            if not heeded:
                raise
            return None

    result = asyncio.run(heeding())
    if heeded:
        sys.exit(128 + heeded[0])
    return result  # type: ignore[return-value]
