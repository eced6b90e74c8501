"""The terminal of this process, and what else is its input: raw while a block runs, its size, what can be read from it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager

from tinamou.system.closing import Closing
from tinamou.system.signals import heard

__all__ = [
    "PIECE",
    "draws_sixels",
    "is_terminal",
    "on_end_signal",
    "on_resize",
    "raw",
    "read",
    "read_all",
    "window",
    "write_all",
]

PIECE = 1 << 16
"""Bytes that are read at once."""

ANSWER_SECONDS = 0.5
"""How long a terminal may take to say what it can, also one that is far away."""


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
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)  # a terminal that was stopped (Ctrl-S) never drains


def window(descriptor: int) -> tuple[int, int] | None:
    """Columns and rows of a terminal; None where there is none, or it does not know."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return (size.columns, size.lines) if size.columns and size.lines else None


def draws_sixels() -> bool:
    """Whether this process's terminal says that it draws sixels (source: DEC STD 070, primary device attributes, 4)."""
    import select

    try:
        both = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    with Closing(both), raw(both):
        write_all(both, b"\x1b[c")
        said = b""
        while not said.endswith(b"c") and select.select([both], [], [], ANSWER_SECONDS)[0] and len(said) < 256:
            said += os.read(both, 64) or b"c"
    return b"4" in said.removeprefix(b"\x1b[?").removesuffix(b"c").split(b";")[1:]


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where the reader is slow."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            import select

            select.select([], [descriptor], [])


def on_end_signal(act: Callable[[int], object]) -> AbstractContextManager[None]:
    """In a running event loop: call ``act`` with the signal's number on SIGTERM and SIGHUP, where nothing else would.

    A signal the program already handles, or ignores, is left alone. Outside the main thread nothing happens.
    """
    return heard([one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL], act)


def on_resize(act: Callable[[], object]) -> AbstractContextManager[None]:
    """In a running event loop: call ``act`` when the terminal's size changes. Outside the main thread nothing happens."""
    return heard([signal.SIGWINCH], lambda _: act())


async def read(descriptor: int) -> bytes:
    """What can be read now or next; empty at the end. A regular file needs no waiting, and epoll refuses it."""
    import asyncio

    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return os.read(descriptor, PIECE)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, PIECE)
    except OSError:
        return b""


async def read_all(descriptor: int) -> AsyncIterator[bytes]:
    """All that comes, piece by piece, to its end."""
    while data := await read(descriptor):
        yield data
