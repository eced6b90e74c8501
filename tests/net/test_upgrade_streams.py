"""Another QEMU takes over, again and again, a machine at work: a connection through a tap, synced writes, a TPM, the time.

``TINAMOU_ROUNDS`` says how often, ``TINAMOU_MEMORY`` how large it is. It prints how long the machine stood still, and beside
that what its suspension takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from labs import Lab
from typed import eventually

ROUNDS = int(os.environ.get("TINAMOU_ROUNDS", "3"))
MEMORY = os.environ.get("TINAMOU_MEMORY", "512M")
HOST, PORT = "10.9.0.254", 9000
WRITES = f"""
(while :; do echo $((++i)); usleep 10000; done | nc {HOST} {PORT}) >/dev/null 2>&1 &
(while :; do echo $((++i)) > /dev/vda; sync; echo $i > /tmp/part; mv /tmp/part /tmp/synced; done) >/dev/null 2>&1 &
until [ -e /tmp/synced ]; do usleep 10000; done
"""
LAST = "dd if=/dev/vda bs=512 count=1 2>/dev/null | tr -dc '0-9\\n' | head -1"
MEASURED = "cat /sys/class/tpm/tpm0/pcr-sha256/*"
SERVER = f"""
import socket
listener = socket.create_server(({HOST!r}, {PORT}))
print("listens", flush=True)
line, _ = listener.accept()
for text in line.makefile():
    print(text, end="", flush=True)
"""
"""It hears one connection: what comes later came by that."""
PAIRS = [
    pytest.param("", "", id="installed-installed"),
    pytest.param("10", "10", id="10-10", marks=pytest.mark.qemu10),
    pytest.param("10", "11", id="10-11", marks=[pytest.mark.qemu10, pytest.mark.qemu11]),
    pytest.param("11", "11", id="11-11", marks=pytest.mark.qemu11),
]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600 + 60 * ROUNDS),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)"),
]


@contextmanager
def heard(lab: Lab, said: Path) -> Iterator[None]:
    """What comes by the first connection to the port is written to a file."""
    with said.open("w") as file:
        words = ["ip", "netns", "exec", lab.name, sys.executable, "-c", SERVER]
        with subprocess.Popen(words, stdout=file) as server:
            eventually(lambda: said.read_text() == "listens\n", "a server")
            yield
            server.kill()


def numbers(said: Path) -> list[int]:
    """The numbers that came, without one that is still on its way."""
    return [int(line) for line in said.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_everything_goes_on(old: str, new: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{old}"])
    to = ("--to", os.environ[f"TINAMOU_QEMU{new}"]) if new else ()
    lab.ip("link add br0 type bridge")
    lab.ip(f"addr add {HOST}/24 dev br0")
    lab.ip("link set br0 up")
    said, pauses, synced = tmp_path / "said", [], 0
    more = ("--tpm", "--disk", "size=8M", "--memory", MEMORY, "--set", "memory.forkable=true")
    lab.start("one", "type=bridge,bridge=br0,address=10.9.0.1/24", *more)
    with heard(lab, said):
        assert lab.reaches("one", HOST)
        lab.guest("one", WRITES)
        measured = lab.guest("one", MEASURED)
        for _ in range(ROUNDS):
            [done] = json.loads(lab.tinamou("upgrade", "one", *to, "--json").stdout)
            assert (done["why"], done["note"]) == ("", "")
            pauses.append(done["pause"])
            before, last = len(numbers(said)), int(lab.guest("one", "cat /tmp/synced"))
            assert last > synced and int(lab.guest("one", LAST)) >= last
            synced = last
            eventually(lambda before=before: len(numbers(said)) > before, "more by the connection there was")
            earliest, told, latest = time.time(), int(lab.guest("one", "date +%s")), time.time()
            assert earliest - 1 < told < latest + 1
        came = numbers(said)
        assert came == list(range(1, len(came) + 1))
        assert lab.guest("one", MEASURED) == measured
        stood = []
        for _ in range(min(ROUNDS, 5)):
            began = time.monotonic()
            lab.tinamou("suspend", "one")
            lab.tinamou("resume", "one")
            stood.append(time.monotonic() - began)
    lab.tinamou("rm", "-f", "one")
    ratio = median(pauses) / median(stood)
    print(f"{MEMORY}, {ROUNDS} upgrades: median {median(pauses) * 1000:.0f} ms, longest {max(pauses) * 1000:.0f}; ", end="")
    print(f"suspended and resumed: {median(stood) * 1000:.0f} ms; {ratio:.3f}")
