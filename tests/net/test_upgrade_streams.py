"""Another QEMU takes over, again and again, a machine at work: a connection through a tap, synced writes, a TPM, the time.

And what comes and goes through passt as fast as it can.

``TINAMOU_ROUNDS`` says how often, ``TINAMOU_MEMORY`` how large it is. It prints how long the machine stood still, and beside
that what its suspension takes.
"""

from __future__ import annotations

import hashlib
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
from cut_short import CUT_SHORT
from labs import OUTSIDE, UPGRADES, Lab
from typed import eventually

from tinamou.probe.qemu import find_binary
from tinamou.state import machines

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
pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600 + 60 * ROUNDS),
]


@contextmanager
def heard(lab: Lab, said: Path) -> Iterator[None]:
    """What comes by the first connection to the port is written to a file."""
    with said.open("w") as file:
        words = ["ip", "netns", "exec", lab.name, sys.executable, "-c", SERVER]
        with subprocess.Popen(words, stdout=file) as server:
            try:
                eventually(lambda: said.read_text() == "listens\n", "a server")
                yield
            finally:
                server.kill()


def numbers(said: Path) -> list[int]:
    """The numbers that came, without one that is still on its way."""
    return [int(line) for line in said.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]


@pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)")
@pytest.mark.parametrize(("old", "new"), UPGRADES)
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


BOTH_WAYS = f"""
import hashlib, os, pathlib, socket, sys
enough, block = pathlib.Path(sys.argv[1]), os.urandom(1 << 16)
def sends(line):
    while not enough.exists():
        line.sendall(block)
        yield block
    line.shutdown(socket.SHUT_WR)
def gets(line):
    while data := line.recv(1 << 20):
        yield data
def serve(line):
    way, digest, size = line.recv(1).decode(), hashlib.md5(), 0
    for data in (sends if way == "D" else gets)(line):
        digest.update(data)
        size += len(data)
    print(way, size, digest.hexdigest(), flush=True)
    os._exit(0)
listener = socket.create_server(({OUTSIDE!r}, {PORT}))
print("listens", flush=True)
for _ in range(2):
    line, _ = listener.accept()
    if not os.fork():
        serve(line)
os.wait(), os.wait()
"""
"""One connection on which it sends until a file exists, one on which it hears; what went over each."""
ENDS = """#!/bin/sh
case "$*" in *incoming*) set -- "$@" -device there-is-none ;; esac
exec %s "$@"
"""
"""A QEMU that ends when it has its networks already."""
DOWN = f"(printf D; sleep 1000) | nc {OUTSIDE} {PORT} | md5sum > /tmp/down &"
UP = f"(printf U; while [ ! -e /tmp/enough ]; do head -c 500000 /dev/zero; done) | nc {OUTSIDE} {PORT} > /dev/null &"


@pytest.mark.skipif(not shutil.which("passt"), reason="passt is not installed (script/setup run)")
@pytest.mark.parametrize(("old", "new"), UPGRADES)
def test_what_goes_through_passt_goes_on(
    old: str, new: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{old}"])
    to = ("--to", os.environ[f"TINAMOU_QEMU{new}"]) if new else ()
    lab.outside()
    lab.start("one", "type=passt", "--set", "memory.forkable=true")
    lab.address("one")
    enough, said, pauses = tmp_path / "enough", tmp_path / "said", []
    words = ["ip", "netns", "exec", f"{lab.name}-far", sys.executable, "-c", BOTH_WAYS, str(enough)]
    with said.open("w") as file, subprocess.Popen(words, stdout=file) as server:
        try:
            eventually(lambda: said.read_text() == "listens\n", "a server")
            lab.guest("one", f"({DOWN} {UP}) 2>/dev/null")
            for _ in range(ROUNDS):
                [done] = json.loads(lab.tinamou("upgrade", "one", *to, "--json").stdout)
                assert (done["why"], done["note"]) == ("", "")
                pauses.append(done["pause"])
            enough.touch()
            lab.guest("one", "touch /tmp/enough")
            assert server.wait(120) == 0
        finally:
            server.kill()
    sent, got = sorted(line.split() for line in said.read_text().splitlines()[1:])
    assert sent[0] == "D" and int(sent[1]) > ROUNDS << 16
    assert lab.wait("one", "test -s /tmp/down && cat /tmp/down").split()[0] == sent[2]
    assert got[0] == "U" and int(got[1]) > ROUNDS * 500000
    assert got[2] == hashlib.md5(bytes(int(got[1]))).hexdigest()
    lab.tinamou("rm", "-f", "one")
    print(f"{sent[1]} bytes in, {got[1]} out; {ROUNDS} upgrades: median {median(pauses) * 1000:.0f} ms", end=", ")
    print(f"longest {max(pauses) * 1000:.0f}")


@pytest.mark.skipif(not shutil.which("passt"), reason="passt is not installed (script/setup run)")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_command_that_is_killed_leaves_passt_to_one(moment: str, lab: Lab) -> None:
    lab.outside()
    lab.run("sh", "-c", "echo 0 4294967294 >/proc/sys/net/ipv4/ping_group_range")
    lab.start("one", "type=passt", "--set", "memory.forkable=true")
    assert lab.reaches("one", OUTSIDE)
    before = machines.find("one").process
    lab.run(sys.executable, "-c", CUT_SHORT, "one", moment, check=False)
    lab.tinamou("ls")
    assert (machines.find("one").process == before) == (moment == "before")
    assert lab.reaches("one", OUTSIDE)
    lab.tinamou("upgrade", "one")
    assert lab.reaches("one", OUTSIDE)
    lab.tinamou("rm", "-f", "one")


@pytest.mark.parametrize("moment", ["refused", "before", "after"])
def test_whatever_comes_of_an_upgrade_a_tap_carries_what_the_guest_sends(moment: str, lab: Lab, open_folder: Path) -> None:
    lab.ip("link add br0 type bridge")
    lab.ip(f"addr add {HOST}/24 dev br0")
    lab.ip("link set br0 up")
    lab.start("one", "type=bridge,bridge=br0,address=10.9.0.1/24", "--set", "memory.forkable=true")
    assert lab.reaches("one", HOST)
    before = machines.find("one").process
    if moment == "refused":
        wrapped = open_folder / "qemu-system-x86_64"
        wrapped.write_text(ENDS % find_binary("x86_64"))
        wrapped.chmod(0o755)
        assert lab.tinamou("upgrade", "one", "--to", str(wrapped), check=False).returncode != 0
    else:
        lab.run(sys.executable, "-c", CUT_SHORT, "one", moment, check=False)
    lab.tinamou("ls")
    assert (machines.find("one").process == before) == (moment != "after")
    assert lab.reaches("one", HOST)
    lab.tinamou("upgrade", "one")
    assert lab.reaches("one", HOST)
    lab.tinamou("rm", "-f", "one")
