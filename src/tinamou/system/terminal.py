"""The terminal of this process: raw while a block runs, and restored however the block ends."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator

__all__ = ["is_terminal", "on_end_signal", "raw", "window", "write_all"]


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is a terminal; a closed one is not."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the program as it is typed, Ctrl-C included; nothing is echoed. No terminal: nothing happens."""
    if not is_terminal(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def window(descriptor: int) -> tuple[int, int] | None:
    """Columns and rows of a terminal; None where there is none, or it does not know."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return (size.columns, size.lines) if size.columns and size.lines else None


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where the reader is slow."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            import select

            select.select([], [descriptor], [])


@contextlib.contextmanager
def on_end_signal(act: Callable[[int], None]) -> Iterator[None]:
    """In a running event loop: call ``act`` with the signal's number on SIGTERM and SIGHUP, where nothing else would.

    A signal the program already handles, or ignores, is left alone. Outside the main thread nothing happens.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, act, int(number))
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
