"""The bridge between blocking and asynchronous code: an event loop in a thread of its own, and threads beside a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from tinamou.system import lock

__all__ = ["dropped", "ended", "in_thread", "wait_for"]

T = TypeVar("T")
P = ParamSpec("P")
_PATIENCE = 3
"""So many requests to end are heeded while a coroutine cleans up; the last one ends the wait for that, too."""

_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    """The one event loop of this process, in a thread that lives as long as the process."""
    with _lock:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="tinamou", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop's thread and return its result.

    Whatever interrupts the wait (Ctrl-C, a request to end) cancels the coroutine, and is raised once that has cleaned up
    after itself. Raises RuntimeError on the loop's own thread, which would wait for itself.
    """
    loop = _loop()
    if threading.current_thread().name == "tinamou":
        work.close()
        raise RuntimeError("a blocking call was made from within the asynchronous machine: use tinamou.aio there")
    ended: concurrent.futures.Future[T] = concurrent.futures.Future()
    started: list[asyncio.Task[T]] = []
    told: list[bool] = []
    context = contextvars.copy_context()

    def start() -> None:
        if told:
            return
        task = loop.create_task(work, context=context)
        started.append(task)
        task.add_done_callback(lambda task: _pass_on(task, ended))

    def cancel() -> None:
        """Once alone: a second one would cancel its clean-up."""
        if not told and started:
            started[0].cancel()
        elif not told:
            work.close()
            _cancelled(ended)
        told.append(True)

    try:
        loop.call_soon_threadsafe(start)
        return ended.result()
    except BaseException:
        _end(ended, lambda: loop.call_soon_threadsafe(cancel))
        raise


def _pass_on(task: asyncio.Task[T], ended: concurrent.futures.Future[T]) -> None:
    if task.cancelled():
        _cancelled(ended)
    elif (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(task.result())


def _cancelled(ended: concurrent.futures.Future[Any]) -> None:
    ended.cancel()
    ended.set_running_or_notify_cancel()


def _end(ended: concurrent.futures.Future[Any], tell: Callable[[], object]) -> None:
    """Have a coroutine cancelled, and wait until it has cleaned up; requests to end come at any moment of this, too."""
    for _ in range(_PATIENCE):
        try:
            if not ended.done():
                tell()
                concurrent.futures.wait([ended])
        except (KeyboardInterrupt, SystemExit):
            continue
        return


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, called beside the event loop.

    A thread cannot be cancelled: a request for that is raised when the thread has ended, so that it changes nothing behind
    the back of who cleans up, however often that is asked for. It waits for no lock any more then.
    """
    given_up = threading.Event()
    mark = lock.given_up.set(given_up.is_set)
    try:
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    finally:
        lock.given_up.reset(mark)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        given_up.set()
        await ended(running)
        raise


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait until a task has ended, which nothing cuts short: for who was cancelled already, and raises that afterwards."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def dropped(task: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Cancel a task and wait until it has ended, so many seconds at most; nobody asks what it raised."""
    task.cancel()
    await _over(task, seconds)


async def _over(task: asyncio.Future[Any], seconds: float | None = None) -> None:
    await asyncio.wait([task], timeout=seconds)
    if task.done() and not task.cancelled():
        task.exception()
