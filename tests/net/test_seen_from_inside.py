"""How long a guest stands still, as the guest sees it: it asks a clock outside for the time, again and again.

Its own clocks stand still with it. ``TINAMOU_ROUNDS`` says how often, ``TINAMOU_HELD`` how many MiB its memory holds; it
prints the longest time between two answers, with a fork or an upgrade between them and without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

import pytest
from labs import UPGRADES, Lab

ROUNDS, HELD = int(os.environ.get("TINAMOU_ROUNDS", "3")), int(os.environ.get("TINAMOU_HELD", "64"))
PORT = 9001
CLOCK = f"""
import socket, time
listener = socket.create_server(("", {PORT}))
print("listens", flush=True)
line, _ = listener.accept()
line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    line.sendall(b"%d\\n" % (time.monotonic_ns() // 1000))
    if not line.recv(64):
        break
"""
ASKS = f"(nc %s {PORT} </tmp/ask | while read now; do echo $now >&4; echo >&3; done 3>/tmp/ask 4>/tmp/told) >/dev/null 2>&1"
STILL = 0.8

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600 + 60 * ROUNDS),
]


def longest(lab: Lab, meanwhile: Callable[[], object]) -> float:
    """Seconds between two answers that the guest got, at most."""
    first = int(lab.guest("one", "wc -l </tmp/told"))
    meanwhile()
    lab.wait("one", f"[ $(wc -l </tmp/told) -gt {first + 20} ]")
    told = list(map(int, lab.guest("one", f"tail -n +{first} /tmp/told").split()[:-1]))
    assert told == sorted(told)
    return max(later - earlier for earlier, later in pairwise(told)) / 1e6


@contextmanager
def asking(lab: Lab, net: str, address: str) -> Iterator[None]:
    """A machine whose guest asks a clock at this address, as it sees it, all the time; that works is shown by a pause."""
    lab.start("one", net, "--memory", f"{512 + 2 * HELD}M", "--set", "memory.forkable=true")
    fill = f"mkdir /tmp/f; mount -t tmpfs -o size=90% f /tmp/f; dd if=/dev/urandom of=/tmp/f/f bs=1M count={HELD} 2>&1"
    lab.guest("one", fill)
    words = ["ip", "netns", "exec", lab.name, sys.executable, "-c", CLOCK]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout and server.stdout.readline() == "listens\n"
            lab.address("one")
            lab.guest("one", f"mkfifo /tmp/ask; {ASKS % address} &")

            def stands_still() -> None:
                lab.tinamou("pause", "one")
                time.sleep(STILL)
                lab.tinamou("resume", "one")

            assert longest(lab, stands_still) > STILL
            yield
        finally:
            server.kill()
    lab.tinamou("rm", "-f", "one")


def told(lab: Lab, way: Callable[[], object]) -> str:
    """What came of many times, beside as many of nothing."""
    said = []
    for meanwhile in (way, lambda: time.sleep(2)):
        times = [longest(lab, meanwhile) * 1000 for _ in range(ROUNDS)]
        said.append(f"median {median(times):.0f} ms, longest {max(times):.0f}")
    return f"{HELD} MiB held, {ROUNDS} times: {said[0]}; without: {said[1]}"


@pytest.mark.parametrize(
    "qemu", ["", pytest.param("10", marks=pytest.mark.qemu10), pytest.param("11", marks=pytest.mark.qemu11)]
)
def test_a_fork(qemu: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if qemu:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{qemu}"])

    def forks() -> None:
        name = lab.tinamou("fork", "one").stdout.strip()
        assert lab.guest(name, "hostname").strip() == name
        lab.tinamou("rm", "-f", name)

    with asking(lab, "type=user", "10.0.2.2"):
        forks()  # the first alone freezes the memory where it lies
        print(told(lab, forks))


@pytest.mark.parametrize(("old", "new"), UPGRADES)
def test_an_upgrade(old: str, new: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{old}"])
    to = ("--to", os.environ[f"TINAMOU_QEMU{new}"]) if new else ()
    lab.ip("link add br0 type bridge")
    lab.ip("addr add 10.9.0.254/24 dev br0")
    lab.ip("link set br0 up")
    with asking(lab, "type=bridge,bridge=br0,address=10.9.0.1/24", "10.9.0.254"):
        print(told(lab, lambda: lab.tinamou("upgrade", "one", *to)))
