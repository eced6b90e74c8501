"""What a program does with forks on Ray: ``ray_forks.py COUNT``, on the cluster of this host; speaks JSON lines."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import ray

from tinamou import LaunchError, Machine
from tinamou.fleet.on_ray import Forks
from tinamou.fleet.ray_pool import Pool


def say(**data: object) -> None:
    print(json.dumps(data), flush=True)


def counted(ran: list) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in ran:
        assert one.status == 0, one
        found[one.fork.node] = found.get(one.fork.node, 0) + 1
    return found


if __name__ == "__main__":
    count = int(sys.argv[1])
    ray.init(address="auto", logging_level="error", log_to_driver=False)
    with Machine("tiny", memory="128M", net="none", forkable=True) as source:
        source.run("echo warm >/tmp/warm")
        source.checkpoint("warm", kind="portable")
    began = time.monotonic()
    with Forks("warm", count) as forks:
        say(made=len(forks.forks), seconds=time.monotonic() - began, moved=forks.moved)
        say(nodes=counted(forks.run("cat /tmp/warm")), names={one["NodeID"]: one["NodeName"] for one in ray.nodes()})
        try:
            with Forks("warm", 3 * count + 1):  # of four nodes with so many slots each, less those that are taken
                say(refused="")
        except LaunchError as error:
            say(refused=error.why)
        sys.stdin.readline()
        began = time.monotonic()
        ran = forks.run("cat /tmp/warm")
        say(nodes=counted(ran), seconds=time.monotonic() - began, lost=len(forks.lost), names=len({one.fork for one in ran}))
    with Forks("warm", 2) as again:
        say(moved=again.moved)
    with Pool("warm", 6) as pool, ThreadPoolExecutor(6) as threads:
        ran = list(threads.map(pool.run, ["cat /tmp/warm; test ! -e /tmp/used && touch /tmp/used"] * 12))
        say(pooled=counted(ran), forks=len({one.fork for one in ran}), said=sorted({one.stdout.decode() for one in ran}))
