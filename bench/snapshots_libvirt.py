"""The same guest under libvirt, its snapshots taken by ``virsh snapshot-create-as --disk-only --atomic``."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tinamou.images.resolve import resolve
from tinamou.system.qcow2 import write_overlay

NAME = "tinamou-bench"


def virsh(*words: str) -> str:
    """One virsh command."""
    return subprocess.run(["virsh", "-q", *words], check=True, capture_output=True, text=True).stdout


class LibvirtGuest:
    """The tiny guest's kernel and initrd, with as many empty disks, under a libvirtd this starts when none runs."""

    tool = "virsh"

    def __init__(self, disks: int, folder: Path) -> None:
        self.folder = folder / f"libvirt-{disks}"
        self.disks = disks
        self.files: list[list[Path]] = []

    async def start(self) -> None:
        """Boot until the agent answers."""
        daemons()
        self.folder.parent.chmod(0o755)
        self.folder.mkdir(mode=0o777)
        for number in range(self.disks):
            write_overlay(self.folder / f"d{number}.qcow2", 64 << 20)
        (self.folder / "domain.xml").write_text(self._xml())
        virsh("create", str(self.folder / "domain.xml"))
        for _ in range(2400):
            try:
                self._agent("guest-ping")
                return
            except subprocess.CalledProcessError:
                await asyncio.sleep(0.1)
        raise TimeoutError("the guest under libvirt does not answer")

    def _agent(self, command: str, **arguments: object) -> Any:
        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        return json.loads(virsh("qemu-agent-command", NAME, request))["return"]

    async def run(self, command: str, data: bytes | None = None) -> str:
        """A shell command in the guest, and what it printed; a program goes in by the agent's file commands."""
        if data is not None:
            handle = self._agent("guest-file-open", path="/writer", mode="w+")
            for at in range(0, len(data), 60000):
                piece = base64.b64encode(data[at : at + 60000]).decode()
                self._agent("guest-file-write", **{"handle": handle, "buf-b64": piece})
            self._agent("guest-file-close", handle=handle)
            command = "chmod +x /writer"
        pid = self._agent("guest-exec", **{"path": "sh", "arg": ["-c", command], "capture-output": True})["pid"]
        while not (state := self._agent("guest-exec-status", pid=pid))["exited"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return base64.b64decode(state.get("out-data", "")).decode()

    async def snapshot(self, name: str) -> tuple[float, float]:
        """Seconds of the command, twice: it does not say how long its transaction was."""
        before = [self._top(number) for number in range(self.disks)]
        began = time.perf_counter()
        virsh("snapshot-create-as", NAME, name, "--disk-only", "--atomic")
        spent = time.perf_counter() - began
        self.files.append(before)
        return spent, spent

    def _top(self, number: int) -> Path:
        taken = len(self.files)
        return self.folder / (f"d{number}.n{taken - 1}" if taken else f"d{number}.qcow2")

    async def finish(self) -> list[list[Path]]:
        """Cut the power; the files every snapshot froze."""
        virsh("destroy", NAME)
        return [[self._qcow2(path) for path in paths] for paths in self.files]

    def _qcow2(self, path: Path) -> Path:
        link = path.with_name(path.name + ".qcow2")
        if path.suffix == ".qcow2":
            return path
        if not link.exists():
            link.symlink_to(path)
        return link

    async def remove(self) -> None:
        """Leave no domain."""
        if NAME in virsh("list", "--name"):
            virsh("destroy", NAME)

    def _xml(self) -> str:
        image = resolve("tiny", "x86_64")
        disks = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>"
            f"<source file='{self.folder}/d{n}.qcow2'/><target dev='vd{chr(97 + n)}' bus='virtio'/></disk>"
            for n in range(self.disks)
        )
        agent = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        boot = (
            f"<kernel>{image.kernel}</kernel><initrd>{image.initrd}</initrd><cmdline>{image.cmdline} console=ttyS0</cmdline>"
        )
        return (
            f"<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os><features><acpi/></features><cpu mode='maximum'/>"
            f"<clock><timer name='hpet' present='no'/></clock><devices>{disks}{agent}"
            f"<serial type='file'><source path='{self.folder}/serial.log'/></serial></devices></domain>"
        )


def daemons() -> None:
    """libvirtd and its logger, unless they run."""
    if subprocess.run(["virsh", "-q", "list"], check=False, capture_output=True).returncode:
        for daemon in ("virtlogd", "libvirtd"):
            subprocess.run([daemon, "-d"], check=True)
        time.sleep(2)
