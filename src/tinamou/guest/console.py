"""The terminal as the guest's serial console: attach, type, detach with Ctrl-]."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from tinamou.errors import GuestError
from tinamou.facts import files
from tinamou.system import terminal
from tinamou.system.sockets import NotListeningError, connect_unix
from tinamou.system.turns import Turn

__all__ = ["DETACH", "attach", "fit", "opened"]

DETACH = b"\x1d"
"""Ctrl-], as with telnet and virsh console."""

_REPLAYED_LINES, _REPLAYED_BYTES = 20, 16 << 10
_SOCKET_WAIT = 5.0
_DETACHED, _AFTERWARDS = "detached", {True: "; the machine runs on", False: "; the machine ends"}


async def attach(
    directory: str,
    *,
    input: int = 0,
    output: int = 1,
    linger: float = 1.0,
    stays: bool = True,
    boot: Coroutine[Any, Any, None] | None = None,
) -> int:
    """Attach to the console of the machine in ``directory`` until the user detaches or the machine ends; returns 0.

    ``input`` and ``output`` are descriptors. A terminal becomes raw, sees the last lines of ``serial.log`` first, and is
    restored on every way out. When ``input`` is not a terminal, all of it goes to the guest as it is (Ctrl-] too), and the
    end of it detaches once the guest has printed nothing for ``linger`` seconds. Raises GuestError when there is no
    console, or somebody else is attached. ``stays`` only words what is said: whether the machine outlives the console.
    ``boot`` is a wait for the guest to answer that goes on meanwhile: what it raises ends the console, and is raised.
    """
    booting = _begun(boot)
    try:
        async with _held(directory) as sock:
            return await _attached(directory, sock, input, output, linger, stays, booting)
    finally:
        booting.cancel()


@contextlib.asynccontextmanager
async def opened(directory: str) -> AsyncIterator[tuple[socket.socket, bytes]]:
    """The console of the machine in ``directory`` as a socket that is the block's alone, and the last lines of its log.

    Raises GuestError when there is no console, or somebody else is attached.
    """
    async with _held(directory) as sock:
        yield sock, _replay(f"{directory}/{files.SERIAL_LOG}")


@contextlib.asynccontextmanager
async def _held(directory: str) -> AsyncIterator[socket.socket]:
    turn = Turn(f"{directory}/{files.CONSOLE}.lock")
    if not turn.take():
        raise GuestError(
            "The console is attached elsewhere",
            why=f"process {turn.holder() or 'unknown'} holds it",
            fix="detach there: Ctrl-]",
        )
    try:
        with contextlib.closing(await _reach(directory)) as sock:
            yield sock
    finally:
        turn.give()


def _begun(boot: Coroutine[Any, Any, None] | None) -> asyncio.Future[None]:
    if boot is not None:
        return asyncio.ensure_future(boot)
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


async def _reach(directory: str) -> socket.socket:
    path = f"{directory}/{files.CONSOLE}"
    for _ in range(int(_SOCKET_WAIT / 0.02)):
        try:
            return connect_unix(path)
        except NotListeningError:
            await asyncio.sleep(0.02)
        except OSError as reason:
            raise GuestError(f"The console {path} cannot be opened", why=str(reason)) from reason
    raise GuestError(
        f"The console {path} cannot be reached", why="the machine does not run, or its console is held by another program"
    )


async def _attached(
    directory: str, sock: socket.socket, input: int, output: int, linger: float, stays: bool, booting: asyncio.Future[None]
) -> int:
    interactive = terminal.is_terminal(input)
    if interactive:
        _say(f"attached to the console of {Path(directory).name}; Ctrl-] {'detaches' if stays else 'ends it'}\n")
        terminal.write_all(output, _replay(f"{directory}/{files.SERIAL_LOG}"))
    window = _Window(directory, input) if interactive else None
    with terminal.raw(input):
        ended = await _pump(sock, input, output, linger, interactive, window, booting)
    if interactive:
        _say(f"\n{ended}{_AFTERWARDS[stays] if ended == _DETACHED else ''}\n")
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _replay(path: str) -> bytes:
    """The last lines of the log, without what would move the cursor."""
    from tinamou.guest.failure import tail

    lines = tail(path)[-_REPLAYED_BYTES:].splitlines()[-_REPLAYED_LINES:]
    return "".join(f"{line}\r\n" for line in lines[:-1]).encode() + (lines[-1].encode() if lines else b"")


async def _pump(
    sock: socket.socket,
    input: int,
    output: int,
    linger: float,
    interactive: bool,
    fitting: _Window | None,
    booting: asyncio.Future[None],
) -> str:
    """Carry bytes both ways until one side ends; says how it ended. Raises what ``booting`` raises."""
    heard, stopped = asyncio.Event(), asyncio.Event()
    signals: list[int] = []

    def note(number: int) -> None:
        signals.append(number)
        stopped.set()

    ends = [
        asyncio.ensure_future(_from_guest(sock, output, heard)),
        asyncio.ensure_future(_to_guest(sock, input, interactive, heard, linger)),
        asyncio.ensure_future(_stop(stopped)),
    ]
    tasks = [*ends, *([asyncio.ensure_future(fitting.follow(booting))] if fitting else [])]
    try:
        with terminal.on_end_signal(note):
            awaited: list[asyncio.Future[Any]] = [*ends, booting]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if booting.done():
                booting.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if signals:
            raise SystemExit(128 + signals[0])
        return next(task.result() for task in ends if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop(stopped: asyncio.Event) -> str:
    await stopped.wait()
    return "ended by a signal"


async def _from_guest(sock: socket.socket, output: int, heard: asyncio.Event) -> str:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(sock, terminal.PIECE)
        except ConnectionError:
            data = b""
        if not data:
            return "the machine has ended"
        heard.set()
        try:
            terminal.write_all(output, data)
        except BrokenPipeError:
            return "nobody reads the output any more"


async def _to_guest(sock: socket.socket, input: int, interactive: bool, heard: asyncio.Event, linger: float) -> str:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await terminal.read(input):
            typed, key, _ = data.partition(DETACH) if interactive else (data, b"", b"")
            await loop.sock_sendall(sock, typed)
            if key:
                return _DETACHED
    if interactive:
        return "the terminal is gone"
    with contextlib.suppress(TimeoutError):
        while True:
            heard.clear()
            async with asyncio.timeout(linger):
                await heard.wait()
    return "the input ended"


_FIT = 'for t in $(cat /sys/class/tty/console/active); do c=$t; done; stty cols "$0" rows "$1" </dev/$c'


async def fit(directory: str, columns: int, rows: int) -> None:
    """Tell the guest the size of its console, where its agent answers."""
    from tinamou.guest.agent import Agent

    with contextlib.suppress(GuestError):
        async with Agent(f"{directory}/{files.AGENT}", timeout=3.0) as agent:
            await agent.run(["sh", "-c", _FIT, str(columns), str(rows)], timeout=3.0, bare=True)


class _Window:
    """Tells the guest the size of the terminal, now and when it changes: a serial line has no way to carry it."""

    def __init__(self, directory: str, descriptor: int) -> None:
        self._directory = directory
        self._descriptor = descriptor

    async def follow(self, booting: asyncio.Future[None]) -> str:
        await asyncio.wait([booting])
        changed = asyncio.Event()
        changed.set()
        with terminal.on_resize(changed.set):
            while True:
                await changed.wait()
                changed.clear()
                if size := terminal.window(self._descriptor):
                    await self._tell(*size)

    async def _tell(self, columns: int, rows: int) -> None:
        await fit(self._directory, columns, rows)
