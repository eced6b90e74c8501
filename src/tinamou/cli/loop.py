"""Runs a command's asynchronous work so that a request to end cancels it and is cleaned up after."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

__all__ = ["run_until_done", "run_until_told"]

T = TypeVar("T")


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """The work's result; on SIGTERM or SIGHUP it is cancelled, and the process ends with 128 + the signal's number."""
    result, heeded = _run(work, (signal.SIGTERM, signal.SIGHUP))
    if heeded:
        sys.exit(128 + heeded[0])
    return result  # type: ignore[return-value]


def run_until_told(work: Coroutine[Any, Any, int]) -> int:
    """The work's result; on Ctrl-C, SIGTERM or SIGHUP it is cancelled, which is how it is meant to end: 0."""
    result, heeded = _run(work, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    return 0 if heeded or result is None else result


def _run(work: Coroutine[Any, Any, T], signals: Sequence[int]) -> tuple[T | None, list[int]]:
    """The work's result, None when it was cancelled by one of the signals, and those that came."""
    import asyncio

    heeded: list[int] = []

    async def heeding() -> T | None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            heeded.append(number)
            task.cancel()

        for number in signals:
            loop.add_signal_handler(number, end, number)
        try:
            return await work
        except asyncio.CancelledError:
            if not heeded:
                raise
            return None

    return asyncio.run(heeding()), heeded
