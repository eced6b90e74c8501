"""Runs a command's asynchronous work so that a request to end cancels it and is cleaned up after."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_until_done", "run_until_told"]

T = TypeVar("T")


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 3
"""So many requests to end it takes to end the wait for the clean-up, too."""


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """The work's result; on Ctrl-C, SIGTERM or SIGHUP it is cancelled, and that is raised when it has cleaned up."""
    result, heeded = _run(work)
    if heeded:
        raise _request(heeded[0])
    return result  # type: ignore[return-value]


def run_until_told(work: Coroutine[Any, Any, int]) -> int:
    """The work's result; on Ctrl-C, SIGTERM or SIGHUP it is cancelled, which is how it is meant to end: 0."""
    result, heeded = _run(work)
    return 0 if heeded or result is None else result


def _request(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _run(work: Coroutine[Any, Any, T]) -> tuple[T | None, list[int]]:
    """The work's result, None when a request to end cancelled it, and the requests that came, in their order.

    One that this process was started to ignore (nohup) is none.
    """
    before = {number: handler for number in _ENDS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    heeded: list[int] = []
    try:
        import asyncio

        from tinamou.system.signals import heeded_at_once

        running: list[asyncio.Task[T]] = []

        def end(number: int, _: object) -> None:
            heeded.append(number)
            if len(heeded) >= _PATIENCE:
                raise _request(number)
            if len(heeded) == 1 and running and not running[0].done():
                running[0].get_loop().call_soon_threadsafe(running[0].cancel)

        async def heeding() -> T | None:
            with heeded_at_once():
                task = asyncio.ensure_future(work)
                running.append(task)
                if heeded:
                    task.cancel()
                await asyncio.wait([task])
                if task.cancelled() and heeded:
                    return None
                return task.result()

        for number in before:
            signal.signal(number, end)
        return asyncio.run(heeding()), heeded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        work.close()
