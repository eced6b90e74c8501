"""A real QEMU with disks and no guest: data is written and read through the devices' back ends with qemu-io."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tinamou.control import Session, connect
from tinamou.control.commands import monitor
from tinamou.probe.qemu import find_binary
from tinamou.snapshots.history import DiskEntry, load, save
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.qcow2 import read_header, write_overlay

SIZE = 4 << 20
T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    return asyncio.run(work)


@dataclass
class BareMachine:
    """``count`` disks, each an overlay over a shared base image."""

    directory: Path
    count: int = 1
    process: subprocess.Popen[bytes] | None = field(default=None)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        base = self.directory.parent / "base.raw"
        if not base.exists():
            base.write_bytes(b"\xba" * SIZE)
        found = {}
        for number in range(self.count):
            write_overlay(self.directory / f"disk{number}.qcow2", SIZE, str(base), "raw")
            found[f"disk{number}"] = DiskEntry(f"disk{number}-dev", f"disk{number}.qcow2", "qcow2", str(base), "raw")
        save(self.directory, replace(load(self.directory), disks=found))

    @property
    def disks(self) -> Disks:
        return Disks(self.directory)

    def chain(self, disk: str) -> list[Path]:
        history = load(self.directory)
        paths = [self.directory / history.disks[disk].top]
        while True:
            if paths[-1].suffix == ".raw" or not (below := read_header(paths[-1]).backing_file):
                return paths
            paths.append(self.directory / below)

    def start(self, *, limited: bool = False) -> None:
        """Every file as a descriptor, the chain as explicit nodes, a limiter on top when asked."""
        argv, descriptors = [], []
        for disk, entry in load(self.directory).disks.items():
            below = None
            for path in reversed(self.chain(disk)):
                write = path.suffix == ".qcow2"
                descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
                descriptors.append(descriptor)
                argv += ["-add-fd", f"fd={descriptor},set={len(descriptors)},opaque={path}"]
                node = path.stem if write else f"{disk}-base"
                backing = f',"backing":"{below}"' if below else (',"backing":null' if write else "")
                leaf = f"fd{len(descriptors)}-{node}"
                file = f'{{"driver":"file","node-name":"{leaf}","filename":"/dev/fdset/{len(descriptors)}"}}'
                rest = f'"read-only":{"false" if write else "true"},"file":{file}{backing}'
                argv += ["-blockdev", f'{{"driver":"{"qcow2" if write else "raw"}","node-name":"{node}",{rest}}}']
                below = node
            if limited:
                group = f'{{"qom-type":"throttle-group","id":"{disk}-limits","limits":{{"iops-total":1000}}}}'
                node = (
                    f'{{"driver":"throttle","node-name":"{disk}-limit","throttle-group":"{disk}-limits","file":"{below}"}}'
                )
                argv += ["-object", group, "-blockdev", node]
                below = f"{disk}-limit"
            argv += ["-device", f"virtio-blk-pci,drive={below},id={entry.device}"]
        sock = str(self.directory / "qmp.sock")
        head = [find_binary("x86_64"), "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "64"]
        monitors = ["-qmp", f"unix:{sock},server,wait=off", "-qmp", f"unix:{sock}2,server,wait=off"]
        log = (self.directory / "qemu.log").open("ab")
        self.process = subprocess.Popen([*head, *monitors, *argv], pass_fds=descriptors, stdout=log, stderr=log)
        log.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def up(self) -> None:
        """Wait until it has opened everything and answers."""

        async def answered() -> None:
            async with self.session():
                pass

        run(answered())

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            for name in ("qmp.sock", "qmp.sock2"):
                (self.directory / name).unlink(missing_ok=True)
        self.process = None

    @contextlib.asynccontextmanager
    async def session(self, name: str = "qmp.sock") -> AsyncIterator[tuple[Session, Disks]]:
        async with await connect(str(self.directory / name)) as session:
            yield session, replace(self.disks, session=session)

    def write(self, disk: str, value: int, offset: str = "0", length: str = "64k") -> None:
        """Write and flush through the top file while the machine is off."""
        top = self.directory / load(self.directory).disks[disk].top
        command = ["qemu-io", "-f", "qcow2", "-c", f"write -P {value} {offset} {length}", "-c", "flush", str(top)]
        subprocess.run(command, check=True, capture_output=True)

    def reads(self, path: str | Path, value: int, offset: str = "0", length: str = "64k") -> bool:
        """Whether a file, with all below it, holds that byte there."""
        command = [
            "qemu-io",
            "-r",
            "-U",
            "-f",
            "qcow2",
            "-c",
            f"read -P {value} {offset} {length}",
            str(self.directory / path),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.returncode == 0 and "failed" not in done.stdout

    def check(self) -> None:
        """Every file clean, every file needed, every descriptor accounted for."""
        for path in self.directory.glob("*.qcow2"):
            subprocess.run(["qemu-img", "check", "-q", "-U", path], check=True)


async def live_write(session: Session, disk: str, value: int, offset: str = "0", length: str = "64k") -> None:
    """A flushed write through the device of a running QEMU."""
    device = f"/machine/peripheral/{disk}-dev/virtio-backend"
    answer = await monitor(session, f'qemu-io -d {device} "write -P {value} {offset} {length}"')
    answer += await monitor(session, f'qemu-io -d {device} "flush"')
    assert "wrote" in answer or not answer.strip(), answer


async def live_reads(session: Session, disk: str, value: int, offset: str = "0", length: str = "64k") -> bool:
    """Whether the device reads that byte there; qemu-io prints its answer on QEMU's stdout, errors come back."""
    device = f"/machine/peripheral/{disk}-dev/virtio-backend"
    answer = await monitor(session, f'qemu-io -d {device} "read -P {value} {offset} {length}"')
    return "failed" not in answer and "rror" not in answer
