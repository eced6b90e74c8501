"""A minimal client of the guest agent, to ask a guest booted by a bare QEMU command line."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time

__all__ = ["answer"]


def answer(argv: list[str], command: list[str], timeout: float = 120) -> str:
    """Boot, run one command through the guest agent, return its output."""
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
