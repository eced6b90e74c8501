"""The resident on this host: the real program, with a terminal in place of its port, and a socket in place of QEMU's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import pty
import select
import signal
import socket
import subprocess
import threading
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from running import run

from tinamou.guest.resident.line import Line
from tinamou.guest.resident.underway import RunningCommand
from tinamou.images.programs import program


class Here:
    """A resident that runs on this host; ``path`` is the socket that leads to it, for one at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "resident.sock")
        self._hung_up, self._gone = threading.Event(), threading.Event()
        self._program = directory / "resident"
        self._program.write_bytes(program("resident", platform.machine()))
        self._program.chmod(0o755)
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self._port = os.ttyname(self._theirs)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.start()
        threading.Thread(target=self._serve, daemon=True).start()

    def start(self) -> None:
        """Start the program, as at a guest's boot, without the right to set this host's clock."""
        apart = ["setpriv", "--bounding-set=-sys_time", "--"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen([*apart, self._program, self._port], stdin=subprocess.DEVNULL)

    def restart(self) -> None:
        """End it with all it runs, and start it again."""
        self.end()
        self.start()

    def end(self) -> None:
        """Kill it, and then what it ran and the process it keeps ready."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        self.process.kill()
        self.process.wait()
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def hang_up(self) -> None:
        """Nobody is at the other end of its port any more."""
        self._hung_up.set()

    def end_line(self) -> None:
        """Hang up at the other end too, as a QEMU that ends."""
        self._listener.close()
        self._line.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._hung_up.is_set():
                self._line, _ = self._listener.accept()
                self._gone.clear()
                threading.Thread(target=self._to_guest, args=(self._line,), daemon=True).start()
                self._from_guest(self._line)
            os.close(self._ours)

    def _from_guest(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._hung_up.is_set() and not self._gone.is_set():
                if select.select([self._ours], [], [], 0.05)[0]:
                    line.sendall(os.read(self._ours, 65536))

    def _to_guest(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := memoryview(line.recv(65536)):
                while data:
                    data = data[os.write(self._ours, data) :]
        self._gone.set()


@contextlib.contextmanager
def resident_here(directory: Path) -> Iterator[Here]:
    """A resident on this host, ended with the block."""
    try:
        here = Here(directory)
    except FileNotFoundError:
        pytest.skip(f"there is no resident for {platform.machine()}")
    try:
        yield here
    finally:
        here.end()


@contextlib.asynccontextmanager
async def line_to(here: Here) -> AsyncIterator[Line]:
    """A line to it that has been answered."""
    line = Line(here.path)
    try:
        await line.hello()
        yield line
    finally:
        line.close()


def talk(state: Path, work: Callable[[Line], Awaitable[None]]) -> None:
    """Run ``work`` with a line to a resident."""

    async def whole() -> None:
        with resident_here(state) as here:
            async with asyncio.timeout(240), line_to(here) as line:
                await work(line)

    run(whole())


async def printed(session: RunningCommand, wanted: bytes) -> bytes:
    """What it printed until that came."""
    got = b""
    while wanted not in got:
        said = await session.read()
        assert said is not None, got
        got += said[1]
    return got


async def the_end(session: RunningCommand) -> int | None:
    """Its status."""
    while await session.read() is not None:
        pass
    return session.status


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False
