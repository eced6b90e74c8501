"""Machines put wrong in different ways: what net diagnose names first, and what is measured before and after its fix.

Every fix is the command diagnose prints, or its --fix. A way that fails says what diagnose saw: nothing passed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.framework import Table, Way
from bench.net import PIECE, apart, use_kernel

__all__ = ["tables"]

BRIDGE = "type=bridge,network=bench"
WRONG, RIGHT = "as it was", "after the fix"


@dataclass(frozen=True)
class Fault:
    """``net`` is what the machine starts with, ``wrong`` a line of shell for the host, or with ``guest`` for the guest.

    ``cause`` is what diagnose must name first.
    """

    cause: str
    net: str = BRIDGE
    wrong: str = ""
    guest: bool = False
    cpus: str = "1"


FAULTS = (
    Fault("e1000 is emulated hardware", "type=user,model=e1000"),
    Fault("QEMU's own TCP/IP (slirp) carries the traffic", "user"),
    Fault("the virtual cable is unplugged", wrong="$TINAMOU net link wrong down"),
    Fault("the guest's interface is down", wrong="ip link set eth0 down", guest=True),
    Fault("the host's interface is down", wrong="ip link set $LINK down"),
    Fault("the guest's packets are smaller than need be", wrong="ip link set eth0 mtu 576", guest=True),
    Fault(
        "a queueing discipline holds packets back",
        wrong="tc qdisc replace dev $LINK root tbf rate 2mbit burst 10k latency 50ms",
    ),
    Fault("a rate limit is set (rate_in)", f"{BRIDGE},rate_in=4Mbit"),
    Fault(
        "the guest changed its MAC address",
        wrong="ip link set eth0 down; ip link set eth0 address 52:54:00:aa:bb:cc; ip link set eth0 up",
        guest=True,
    ),
    Fault(
        "the guest uses an address that is not its own",
        wrong="ip addr flush dev eth0; ip addr add 10.66.0.1/24 dev eth0",
        guest=True,
    ),
    Fault("fewer queues than virtual CPUs", f"{BRIDGE},queues=1", cpus="2"),
)


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """A table for each fault, with what diagnose said under it."""
    if os.geteuid():
        return []
    use_kernel(stack)
    apart(stack)
    return [_table(fault, stack) for fault in FAULTS]


def _table(fault: Fault, stack: ExitStack) -> Table:
    stack.callback(tinamou, "rm", "-f", "wrong", check=False)
    return Table(
        f"net diagnose: {fault.cause}",
        [Way(WRONG, lambda: _wrong(fault)), Way(RIGHT, _right)],
        WRONG,
        notes=(f"machine with --net {fault.net} --cpus {fault.cpus}" + (f"; then: {fault.wrong}" if fault.wrong else ""),),
    )


def tinamou(*words: str, check: bool = True) -> str:
    """The command's standard output."""
    done = subprocess.run([sys.executable, "-m", "tinamou", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def _wrong(fault: Fault) -> Mapping[str, float]:
    """Start, put wrong, and look: the cause must be named first."""
    tinamou("rm", "-f", "wrong", check=False)
    tinamou("run", "-d", "--name", "wrong", "--cpus", fault.cpus, "--net", fault.net)
    time.sleep(6)
    link = str(json.loads(tinamou("net", "ls", "--json"))["interfaces"][0]["link"])
    if fault.guest:
        tinamou("exec", "wrong", "--", "sh", "-c", fault.wrong)
    elif fault.wrong:
        environment = {**os.environ, "LINK": link, "TINAMOU": f"{sys.executable} -m tinamou"}
        subprocess.run(["sh", "-c", fault.wrong], check=True, env=environment)
    time.sleep(0.5)
    report = _report()
    first = report["findings"][0]["cause"]
    if first != fault.cause:
        raise RuntimeError(f"named first: {first}")
    return _speeds(report, f"named first: {first}; nothing passes")


def _right() -> Mapping[str, float]:
    """Do what the first finding says, and look again."""
    finding = _report()["findings"][0]
    fix = str(finding["fix"])
    if "tinamou net " in fix:
        subprocess.run(
            ["sh", "-c", f"{sys.executable} -m {fix[fix.index('tinamou net') :]}"], check=True, capture_output=True
        )
    else:
        tinamou("net", "diagnose", "wrong", "--fix", "--no-measure", check=False)
    time.sleep(4)
    report = _report()
    if any(one["cause"] == finding["cause"] for one in report["findings"]):
        raise RuntimeError("it is still there")
    return _speeds(report, "nothing passes after the fix")


def _report() -> dict[str, list[dict[str, str]]]:
    report: dict[str, list[dict[str, str]]] = json.loads(tinamou("net", "diagnose", "wrong", "--json", check=False))
    return report


def _speeds(report: Mapping[str, list[dict[str, str]]], silent: str) -> Mapping[str, float]:
    if not report["speed"]:
        raise RuntimeError(silent)
    row = report["speed"][-1]
    into, out = float(row["into Mbit/s"]), float(row["out Mbit/s"])
    return {
        "round trip": float(row["median ms"]) / 1000,
        "slowest 1 %": float(row["p99 ms"]) / 1000,
        "100 MB in": PIECE / max(into, 0.1),
        "100 MB out": PIECE / max(out, 0.1),
    }
