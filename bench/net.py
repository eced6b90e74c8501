"""Networks side by side: round trips and bytes between this host and a tiny guest, for each card and backend.

The classic is ``-net nic,model=e1000 -net user``. Debian's cloud kernel has no driver for that card, so all guests run the
full kernel. As root everything happens in a network namespace of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.framework import AtLeast, Missing, Table, Way
from tinamou.guest.agent import Agent
from tinamou.machine.net_trial import trial
from tinamou.network.speed import Speed

__all__ = ["apart", "tables", "use_kernel"]

KERNEL = "linux-image-amd64"
CLASSIC, DEFAULT = "e1000, user (the classic line)", "virtio, passt (the default)"
BRIDGED: dict[str, object] = {"type": "bridge", "network": "bench"}
CASES: dict[str, tuple[dict[str, object], int]] = {
    CLASSIC: ({"type": "user", "model": "e1000"}, 1),
    "virtio, user": ({"type": "user"}, 1),
    DEFAULT: ({"type": "auto"}, 1),
    "virtio, passt, MTU 1500": ({"type": "passt", "mtu": 1500}, 1),
    "e1000, bridge": ({**BRIDGED, "model": "e1000"}, 1),
    "virtio, bridge": (BRIDGED, 1),
    "virtio, bridge, packed": ({**BRIDGED, "packed": "on"}, 1),
    "virtio, bridge, 2 CPUs, 1 queue": ({**BRIDGED, "queues": 1}, 2),
    "virtio, bridge, 2 CPUs, 2 queues": (BRIDGED, 2),
}
PIECE = 800.0
"""Megabits in the hundred megabytes whose time is shown."""

PARTS = {"the guest's own loopback": "127.0.0.1", "to the backend and back": "GATEWAY"}
"""Pings inside the guest, without any process that has to wake up: what of a round trip is the guest, what the path."""


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table: a way for each card and backend."""
    use_kernel(stack)
    missing = []
    if os.geteuid() == 0:
        apart(stack)
    else:
        missing = [
            Missing(name, "only root makes interfaces") for name, (net, _) in CASES.items() if net["type"] == "bridge"
        ]
    unable = {one.name for one in missing}
    bars = [AtLeast(f"{DEFAULT}: {what}", 3.0, f"{CLASSIC}: {what}") for what in ("round trip", "100 MB in", "100 MB out")]
    return [
        Table(
            "networks: round trips of one byte over TCP, and 100 MB into and out of the guest",
            [Way(name, _measured(net, cpus)) for name, (net, cpus) in CASES.items() if name not in unable],
            CLASSIC,
            notes=(
                f"guest kernel {KERNEL}; 'slowest 1 %' is the 99th percentile of 200 round trips",
                "where the guest's CPUs compute nearly as long as the 100 MB take, they are the limit, not the network",
                "a round trip wakes a process in the guest and one on the host; the pings wake none, and are means of 100",
            ),
            missing=missing,
            bars=bars,
        )
    ]


def _measured(net: dict[str, object], cpus: int) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        parts: dict[str, float] = {}

        async def ping(agent: Agent) -> None:
            routes = (await agent.run(["ip", "route"])).stdout.decode().split()
            gateway = routes[routes.index("via") + 1]
            for name, target in PARTS.items():
                argv = ["ping", "-q", "-c", "100", "-i", "0.01", target.replace("GATEWAY", gateway)]
                said = (await agent.run(argv, timeout=60)).stdout.decode()
                if found := re.search(r"= [\d.]+/([\d.]+)/", said):
                    parts[name] = float(found[1]) / 1000

        speed = asyncio.run(trial(net, cpus=cpus, also=ping))
        return {**_times(speed), **parts}

    return run


def _times(speed: Speed) -> dict[str, float]:
    return {
        "round trip": speed.median / 1000,
        "slowest 1 %": speed.p99 / 1000,
        "100 MB in": PIECE / speed.into,
        "100 MB out": PIECE / speed.out_of,
        "100 MB in, computed by the guest's CPUs": PIECE / speed.into * speed.busy_into,
        "100 MB out, computed by the guest's CPUs": PIECE / speed.out_of * speed.busy_out,
    }


def use_kernel(stack: ExitStack) -> None:
    """Build the guest with another kernel, apart from everybody's guests."""
    from tinamou.images import tiny
    from tinamou.images.resolve import resolve
    from tinamou.system.paths import cache_dir

    before = dict(os.environ)
    os.environ["TINAMOU_CACHE"] = str(cache_dir() / f"bench-{KERNEL}")
    kernels: dict[tuple[str, str], str] = tiny._KERNELS
    original = kernels["debian", "amd64"]
    kernels["debian", "amd64"] = KERNEL

    def back() -> None:
        kernels["debian", "amd64"] = original
        os.environ.clear()
        os.environ.update(before)

    stack.callback(back)
    resolve("tiny", os.uname().machine)


def apart(stack: ExitStack) -> None:
    """A network namespace for this thread and all it starts, with a default route: passt takes its addresses from one."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "no network namespace")
    stack.callback(os.close, home)
    stack.callback(libc.setns, home, 0x40000000)
    for line in ("link set lo up", "link add out type veth peer name far", "link set out up", "link set far up"):
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.2/24", "dev", "out"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.1"], check=True)
