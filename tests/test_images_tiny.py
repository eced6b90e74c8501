"""The tiny guest, built from the archive and booted."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tinamou.errors import ImageError
from tinamou.images.resolve import resolve


def _answer(argv: list[str], command: list[str], timeout: float = 120) -> str:
    """Boot, run one command through the guest agent, return its output."""
    import base64
    import time

    ours, theirs = socket.socketpair()
    channel = ["-chardev", f"socket,id=qga,fd={theirs.fileno()}", "-device", "virtio-serial-pci"]
    port = ["-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]
    qemu = subprocess.Popen([*argv, *channel, *port], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    ours.settimeout(timeout)
    lines = ours.makefile("rwb")

    def ask(name: str, **arguments: object) -> object:
        lines.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        lines.flush()
        return json.loads(lines.readline().lstrip(b"\xff"))["return"]

    try:
        ask("guest-sync", id=7)
        started = ask("guest-exec", path=command[0], arg=command[1:], **{"capture-output": True})
        while True:
            status = ask("guest-exec-status", **started)  # type: ignore[arg-type]
            if status["exited"]:  # type: ignore[index]
                return base64.b64decode(status.get("out-data", "")).decode()  # type: ignore[attr-defined]
            time.sleep(0.1)
    finally:
        qemu.kill()
        qemu.wait()


MACHINES = {
    "x86_64": ["-machine", "q35,hpet=off"],
    "aarch64": ["-machine", "virt", "-cpu", "cortex-a57"],
    "riscv64": ["-machine", "virt"],
}


@pytest.mark.vm
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_tiny_guest_answers(arch: str) -> None:
    binary = f"qemu-system-{arch}"
    if not shutil.which(binary):
        pytest.skip(f"{binary} is not installed")
    if not shutil.which("apt-get"):
        pytest.skip("no apt on this host to build the guest from")
    facts = resolve("tiny", arch)
    assert facts.built
    assert facts == resolve("tiny", arch, build=False)
    base = [binary, "-m", "512", "-nodefaults", "-display", "none", "-no-reboot", *MACHINES[arch]]
    direct = ["-kernel", facts.fast_kernel or facts.kernel, "-initrd", facts.initrd, "-append", facts.cmdline]
    assert _answer([*base, *direct], ["uname", "-m"]).strip() == arch
    manifest = json.loads((Path(facts.initrd).parent / "manifest.json").read_text())
    assert "busybox-static" in manifest["packages"]


def test_an_unknown_image_names_what_there_is() -> None:
    with pytest.raises(ImageError) as caught:
        resolve("tinny", "x86_64")
    assert "tiny" in caught.value.fix


def test_an_architecture_without_a_tiny_guest_is_refused() -> None:
    with pytest.raises(ImageError, match="not built for"):
        resolve("tiny", "sparc64")
