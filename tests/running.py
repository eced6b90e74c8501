"""Real QEMU processes, guests and agents for tests, in the layout of a machine's directory; ended when the test ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

import pytest

from tinamou.guest.agent import Agent
from tinamou.snapshots.checkpoint import checkpoints_dir, read

T = TypeVar("T")


def run(work: Coroutine[object, object, T]) -> T:
    """Run one coroutine to its end; what it leaves unfinished is an error."""
    return asyncio.run(work)


@dataclass
class Started:
    """A QEMU that runs with its files in ``directory``."""

    directory: str
    process: subprocess.Popen[bytes]
    at: float

    def alive(self) -> bool:
        return self.process.poll() is None

    def agent(self) -> Agent:
        return Agent(f"{self.directory}/agent.sock")

    def end(self) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait()


def memory_kept_by(pid: int) -> set[int]:
    """The inodes of memory of machines and checkpoints that a process has open."""
    kept = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).startswith(("/memfd:ram", "/memfd:changes", "/memfd:checkpoint")):
                    kept.add(entry.stat().st_ino)
    return kept


def memory_of(checkpoint: str) -> set[int]:
    """The inodes of an instant checkpoint's memory, which is there."""
    taken = read(checkpoints_dir() / checkpoint)
    assert taken
    kept = {one.inode for one in (taken.ram, taken.changes) if one}
    assert memory_exists(kept)
    return kept


def memory_exists(kept: set[int]) -> bool:
    """Whether any process of this host has one of these open."""
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return any(kept & memory_kept_by(pid) for pid in processes)


def listens(path: Path) -> bool:
    """Whether somebody listens at a unix socket, which is there before that (source: proc_net_unix(5), SO_ACCEPTCON)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(len(row) > 7 and row[7] == str(path) and int(row[3], 16) & 0x10000 for row in rows)


def monitors(directory: str) -> list[str]:
    argv = []
    for number, name in enumerate(("qmp.sock", "qmp2.sock")):
        argv += ["-chardev", f"socket,id=mon{number},path={directory}/{name},server=on,wait=off"]
        argv += ["-mon", f"chardev=mon{number},mode=control"]
    return argv


def lines(directory: str) -> list[str]:
    """The serial console and the agent's port."""
    log = f"logfile={directory}/serial.log,logappend=on"
    return [
        *(
            "-chardev",
            f"socket,id=serial0,path={directory}/console.sock,server=on,wait=off,{log}",
            "-serial",
            "chardev:serial0",
        ),
        *("-chardev", f"socket,id=agent0,path={directory}/agent.sock,server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0"),
    ]


@contextlib.contextmanager
def qemu(directory: Path, *arguments: str, binary: str = "qemu-system-x86_64") -> Iterator[Started]:
    """QEMU with two monitors, and what ``arguments`` add."""
    base = [binary, "-nodefaults", "-display", "none", *monitors(str(directory))]
    with (directory / "qemu.log").open("wb") as log:
        process = subprocess.Popen([*base, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    started = Started(str(directory), process, time.monotonic())
    try:
        yield started
    finally:
        started.end()


def bare(directory: Path) -> contextlib.AbstractContextManager[Started]:
    """QEMU without a machine: monitors only."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64 in PATH (script/setup installs it)")
    return qemu(directory, "-machine", "none")


def tiny(directory: Path, *arguments: str, append: str = "") -> contextlib.AbstractContextManager[Started]:
    """The tiny guest, with ``append`` added to its kernel command line."""
    from tinamou.images.resolve import resolve

    if not shutil.which("apt-get"):
        pytest.skip("no apt on this host to build the tiny guest from")
    image = resolve("tiny", "x86_64")
    machine = ["-machine", "q35,hpet=off", "-cpu", "max", "-m", "256", "-no-reboot"]
    boot = ["-kernel", image.kernel, "-initrd", image.initrd, "-append", f"console=ttyS0 {image.cmdline} {append}"]
    return qemu(directory, *machine, *boot, *lines(str(directory)), *arguments)


def outputs(directory: Path) -> list[Path]:
    """The folders in /tmp that hold what commands of that `local_agent` print; other tests have theirs there too."""
    return sorted(Path("/tmp").glob(f"tinamou-{directory.name}-*"))


@contextlib.contextmanager
def local_agent(directory: Path, *arguments: str) -> Iterator[Agent]:
    """A real guest agent that runs on this host and answers on a socket as if it were in a guest."""
    from tinamou.guest import stream

    binary = shutil.which("qemu-ga") or shutil.which("qemu-ga", path="/usr/sbin:/sbin")
    if not binary:
        pytest.skip("no qemu-ga on this host (script/setup installs qemu-guest-agent)")
    path = directory / "agent.sock"
    argv = [binary, "-m", "unix-listen", "-p", str(path), "-t", str(directory), "-f", str(directory / "agent.pid")]
    process = subprocess.Popen([*argv, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    named = SimpleNamespace(token_hex=lambda size: f"{directory.name}-{secrets.token_hex(size)}")
    try:
        with mock.patch.object(stream, "secrets", named):
            yield Agent(str(path), timeout=60)
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def scripted(path: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A server on a unix socket that says what a test wants it to say."""
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
