"""Signals in a running event loop: they end its wait at once, and are handled as before once that is over."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

__all__ = ["heard", "heeded_at_once", "held_back"]


@contextlib.contextmanager
def heeded_at_once() -> Iterator[None]:
    """In a running event loop: a signal's handler runs as soon as the signal comes. Outside the main thread nothing happens.

    Python runs handlers between two of its own steps: one whose signal comes just before the loop begins to wait would run
    when something else ends the wait. asyncio's handlers see to that too, but put the default in their place when they
    go, and the loop closes what wakes it before they do (CPython's ``unix_events.py``, ``close``).
    """
    import asyncio
    import socket

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        loop.add_reader(here, here.recv, 4096)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(here)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Requests to end come when the block is over: what is done in it is done wholly, or not at all.

    Not by a mask: another thread would be given them, and their handlers run in the main thread all the same. Outside the
    main thread no handler interrupts anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    came: list[int] = []
    try:
        with _handled([one for one in asked if signal.getsignal(one) not in (None, signal.SIG_IGN)], came.append):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _handled(numbers: Iterable[int], act: Callable[[int], object]) -> Iterator[None]:
    """In the main thread: ``act`` handles these signals, and as before when the block is over."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in before:
            signal.signal(number, lambda number, _: act(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def heard(numbers: Iterable[int], act: Callable[[int], object]) -> Iterator[None]:
    """In a running event loop: call ``act`` there with the number of each of these signals that comes.

    Outside the main thread nothing happens.
    """
    import asyncio

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    with heeded_at_once(), _handled(numbers, lambda number: loop.call_soon_threadsafe(act, number)):
        yield
