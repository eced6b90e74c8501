"""Networks side by side in one run: round trips and throughput between this host and a tiny guest, per card and backend.

``python -m bench.net [--seconds 2] [--rounds 3] [--only NAME,…] [--json FILE]``; best as root in a network namespace of its
own (``unshare --net --mount``). The first row is the classic ``-net nic,model=e1000 -net user``; it needs a guest kernel
with the e1000 driver (Debian's cloud kernel has none: name another with ``--kernel PACKAGE``, for example linux-image-amd64,
which builds the guest anew in a cache of its own). Each figure is the median of the rounds; ratios are to the first row.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

from tinamou.errors import TinamouError
from tinamou.network.speed import Speed

CASES: dict[str, tuple[dict[str, object], int]] = {
    "e1000 + user (classic)": ({"type": "user", "model": "e1000"}, 1),
    "e1000e + user": ({"type": "user", "model": "e1000e"}, 1),
    "virtio + user": ({"type": "user"}, 1),
    "virtio + passt (default)": ({"type": "passt"}, 1),
    "e1000 + bridge": ({"type": "bridge", "network": "bench", "model": "e1000"}, 1),
    "virtio + bridge": ({"type": "bridge", "network": "bench"}, 1),
    "virtio + bridge, packed": ({"type": "bridge", "network": "bench", "packed": "on"}, 1),
    "virtio + bridge, no filter": ({"type": "bridge", "network": "bench", "anti_spoof": False}, 1),
    "virtio + bridge, 2 CPUs 1 queue": ({"type": "bridge", "network": "bench", "queues": 1}, 2),
    "virtio + bridge, 2 CPUs 2 queues": ({"type": "bridge", "network": "bench"}, 2),
}


def use_kernel(package: str) -> None:
    """Build the guest with another kernel, apart from everybody's guests."""
    from tinamou.images import tiny

    os.environ["TINAMOU_CACHE"] = str(Path(os.environ.get("TINAMOU_CACHE", "/var/tmp")) / f"bench-{package}")
    kernels: dict[Any, str] = tiny._KERNELS
    for key in kernels:
        kernels[key] = package if key[1] == "amd64" else kernels[key]


def a_way_out() -> None:
    """passt takes its addresses from the default route: in an empty namespace, one that leads nowhere."""
    if Path("/proc/net/route").read_text().count("\n") > 1 or os.geteuid():
        return
    for line in ("link set lo up", "link add out type veth peer name far", "link set out up", "link set far up"):
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.2/24", "dev", "out"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.1"], check=True)


def middle(rounds: list[Speed]) -> Speed:
    median, p99, into, out_of = (
        statistics.median(getattr(one, name) for one in rounds) for name in ("median", "p99", "into", "out_of")
    )
    return Speed(median, p99, into, out_of, rounds[0].trips)


async def measure(names: list[str], rounds: int, seconds: float) -> dict[str, Speed]:
    from tinamou.machine.net_trial import trial

    found: dict[str, list[Speed]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            net, cpus = CASES[name]
            try:
                found[name].append(await trial(net, cpus=cpus, seconds=seconds))
            except TinamouError as error:
                print(f"round {number + 1}, {name}: {error.what}: {error.why}", flush=True)
            else:
                print(f"round {number + 1}, {name}: {found[name][-1]}", flush=True)
    return {name: middle(speeds) for name, speeds in found.items() if speeds}


def show(results: dict[str, Speed]) -> None:
    first = next(iter(results.values()))
    print(f"\n{'':34} {'median ms':>10} {'p99 ms':>8} {'into Mbit/s':>12} {'out Mbit/s':>11}   ratios to the first")
    for name, one in results.items():
        ratios = (
            f"{first.median / one.median:.1f} {first.into and one.into / first.into:.1f} {one.out_of / first.out_of:.1f}"
        )
        print(f"{name:34} {one.median:10.2f} {one.p99:8.2f} {one.into:12.0f} {one.out_of:11.0f}   {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--kernel", default="")
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    if wish.kernel:
        use_kernel(wish.kernel)
    a_way_out()
    names = [name for name in CASES if not wish.only or any(word in name for word in wish.only.split(","))]
    results = asyncio.run(measure(names, wish.rounds, wish.seconds))
    show(results)
    if wish.json:
        wish.json.write_text(json.dumps({name: dataclasses.asdict(one) for name, one in results.items()}))


if __name__ == "__main__":
    main()
