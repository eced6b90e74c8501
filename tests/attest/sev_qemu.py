"""Stands where QEMU is, on a processor with SEV: it starts by a session, measures, waits, and takes a secret, or refuses.

What is started is this file behind those it imports, as one script, with KEY of a platform before it (`script`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from attest.psp import API, Psp
from lifecycle.fake_qemu import Fake

KEY = 0
_NAMES = (
    *("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", "44baf731-3a2f-4bd7-9af1-41e29169781d"),
    "4de79437-abd2-427f-b835-d5b172d2045b",
)


def hashes_page(parts: list[bytes]) -> bytes:
    """What QEMU puts where the firmware looks for hashes (target/i386/sev.c): of arguments, initrd and kernel."""
    table = b""
    for name, part in zip(_NAMES, parts, strict=True):
        table += uuid.UUID(name).bytes_le + b"\x32\0" + hashlib.sha256(part).digest()
    return (uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + b"\xa8\0" + table).ljust(176, b"\0")


class Held(Fake):
    """A guest that was measured, and waits. A monitor's ``info`` says in hexadecimal what it was given."""

    def __init__(self, devices: list[dict[str, Any]]) -> None:
        super().__init__(devices)
        words = sys.argv[1:]
        said = {words[at]: words[at + 1] for at in range(len(words) - 1)}
        objects = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-object" and "{" in words[at + 1]]
        guest = next(one for one in objects if one["qom-type"] == "sev-guest")
        self.psp = Psp(KEY)
        blobs = [base64.b64decode(Path(guest[name]).read_bytes()) for name in ("dh-cert-file", "session-file")]
        self.psp.launch_start(guest["policy"], *blobs)
        files = [Path(said[name]).read_bytes() for name in ("-bios", "-initrd", "-kernel")]
        measured = files[0] + hashes_page([said["-append"].encode() + b"\0", *files[1:]])
        self.data = self.psp.launch_measure(hashlib.sha256(measured).digest(), b"n" * 16)
        self.running, self.state, self.got = "-S" not in words, "launch-secret", b""

    def answer(self, command: str, given: dict[str, Any]) -> object:
        if command == "query-status" and not self.running:
            return {"status": "prelaunch", "running": False}
        if command == "query-sev":
            firmware = dict(zip(("api-major", "api-minor", "build-id"), API, strict=True))
            return {**firmware, "enabled": True, "policy": self.psp.policy, "state": self.state, "handle": 1}
        if command == "query-sev-launch-measure":
            return {"data": base64.b64encode(self.data).decode()}
        if command == "sev-inject-launch-secret":
            packet = [base64.b64decode(given[name]) for name in ("packet-header", "secret")]
            try:
                self.got = self.psp.launch_secret(*packet)
            except ValueError as error:
                raise KeyError(str(error)) from None
            return {}
        if command == "human-monitor-command":
            return self.got.hex()
        self.state = "running" if command == "cont" else self.state
        return super().answer(command, given)


def script(key: int) -> str:
    """All of it as one script, for the platform with this key."""
    folder, found = Path(__file__).parent, f"#!{os.path.realpath(sys.executable)} -IS\nfrom __future__ import annotations\n"
    for path in (folder.parent / "lifecycle/fake_qemu.py", folder / "psp.py", Path(__file__)):
        text = path.read_text().partition('\nif __name__ == "__main__":')[0]
        lines = text.replace("\nKEY = 0\n", f"\nKEY = {key}\n").splitlines()
        ours = ("from __future__", "from attest.", "from lifecycle.")
        found += "".join(f"{one}\n" for one in lines if not one.startswith(ours))
    return f"{found}\n\nmain(sys.argv[1:], Held)\n"
