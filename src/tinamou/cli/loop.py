"""Requests to end a command (Ctrl-C, SIGTERM, SIGHUP): where it stands, and in its asynchronous work, which cleans up."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["heed_requests", "heed_the_line", "heeded", "leave_the_line", "run_until_done", "run_until_told"]

T = TypeVar("T")

_PATIENCE = 3
"""So many requests to end it takes to end the clean-up, too."""
_AGAIN = 0.1
"""So many seconds after it was raised, a request to end must be on its way."""

_LATE = "ignored due to race condition"
"""Python's words where a request comes as the command ends, and who heeded it has gone (CPython's signalmodule.c)."""

_asked: list[int] = []
_tell: list[Callable[[], None]] = []
"""How the loop that runs is told; empty where none does."""


def heed_requests() -> None:
    """From now on a request to end is raised as KeyboardInterrupt or SystemExit, where no loop is to be told of it.

    So is the third, whatever goes on. What this process was started to ignore (nohup) stays ignored.
    """
    sys.unraisablehook = _lost
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _heed)


def heed_the_line() -> None:
    """From now on the end of standard output's line counts as a hang-up, where ``TINAMOU_ATTENDED`` says that it is one.

    Who calls over ssh without a terminal sends no signal when the line is cut, and what writes nothing would go on for ever.
    The kernel tells of a change at a socket or pipe by SIGIO (source: fcntl(2), O_ASYNC); no thread waits for it.
    """
    import fcntl

    if not os.environ.pop("TINAMOU_ATTENDED", "") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    signal.signal(signal.SIGIO, _look_at_the_line)
    fcntl.fcntl(1, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_ASYNC)
    _look_at_the_line(0, None)


def leave_the_line() -> None:
    """The line's end counts no more: this process becomes another program, which would die of being told of it."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def _look_at_the_line(_: int, __: object) -> None:
    import select

    line = select.poll()
    line.register(1, 0)  # a hang-up and an error are told in any case
    if line.poll(0):
        leave_the_line()
        _heed(signal.SIGHUP, None)


def _heed(number: int, _: object) -> None:
    _asked.append(number)
    if len(_asked) == 1 and _tell:
        _tell[-1]()
    elif len(_asked) == 1 or len(_asked) >= _PATIENCE:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # no fault any more
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        raise _request()


def _again(_: int, __: object) -> None:
    """Raise a request to end that was lost: nothing cleans up after it, neither here nor in a loop.

    Python drops what is raised while it tidies up after an object, which it does at every import, and while it asks a C
    library something.
    """
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        error = error.__context__
    if error is None and not _tell:
        raise _request()


def _lost(lost: sys.UnraisableHookArgs) -> None:
    late = isinstance(lost.exc_value, OSError) and str(lost.exc_value).endswith(_LATE)
    if not late and not isinstance(lost.exc_value, SystemExit | KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def heeded() -> None:
    """From now on requests to end are ignored: the command ends."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)


def _request() -> BaseException:
    return KeyboardInterrupt() if _asked[0] == signal.SIGINT else SystemExit(128 + _asked[0])


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """The work's result; on a request to end it is cancelled, and that is raised when it has cleaned up."""
    result, told = _run(work)
    if told:
        raise _request()
    return result  # type: ignore[return-value]


def run_until_told(work: Coroutine[Any, Any, int]) -> int:
    """The work's result; on a request to end it is cancelled, which is how it is meant to end: 0."""
    result, told = _run(work)
    return 0 if told or result is None else result


def _run(work: Coroutine[Any, Any, T]) -> tuple[T | None, bool]:
    """The work's result, None when a request to end cancelled it, and whether one came; the line of progress is left."""
    from tinamou.cli import output

    running: list[asyncio.Task[T]] = []
    before = len(_asked)

    def tell() -> None:
        if running and not running[0].done():
            running[0].get_loop().call_soon_threadsafe(running[0].cancel)

    async def heeding() -> T | None:
        with heeded_at_once():
            task = asyncio.ensure_future(work)
            running.append(task)
            if len(_asked) > before:
                task.cancel()
            await asyncio.wait([task])
            return None if task.cancelled() and len(_asked) > before else task.result()

    try:
        import asyncio

        from tinamou.system.signals import heeded_at_once

        _tell.append(tell)
        result = asyncio.run(heeding())
    finally:
        _tell.clear()
        work.close()
        output.end_progress()
    return result, len(_asked) > before
