"""Forks beside cold boot and virsh restore: request to first answered command, and two hundred at once."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.boot import the_guest
from bench.framework import AtLeast, AtMost, Bar, Missing, Table, Way
from bench.libvirt import Libvirt
from tinamou import Machine, Pool
from tinamou.aio import Machine as AsyncMachine
from tinamou.machine.connected import Connected
from tinamou.machine.forking import fork_many
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.resting import discard
from tinamou.system.loop_thread import wait_for

__all__ = ["tables"]

MANY = int(os.environ.get("TINAMOU_BENCH_FORKS", "200"))
BOOT, FORK, POOLED, RESTORE, LARGE = "cold boot", "fork", "pooled fork", "virsh restore", "fork, 4 GiB"
DISK: dict[str, Any] = {"disks": [{"size": "64M"}]}
LARGE_BAR = 1.2


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One fork at a time, beside its peers; then many at once."""
    saved = {name: _checkpoint(stack, f"b{number}", **how) for number, (name, how) in enumerate(_GUESTS.items())}
    return [_one_by_one(stack, scratch, saved), _at_once(saved[FORK])]


_GUESTS: dict[str, dict[str, Any]] = {
    FORK: {"memory": "512M"},
    LARGE: {"memory": "4G"},
    "fork, 2 CPUs": {"memory": "512M", "cpus": 2},
}


def _checkpoint(stack: ExitStack, name: str, **settings: Any) -> Checkpoint:
    with Machine(forkable=True, **settings, **DISK) as source:
        checkpoint = source.checkpoint(name)
    stack.callback(discard, Path(checkpoint.directory))
    return checkpoint


# ── one by one ──


def _one_by_one(stack: ExitStack, scratch: Path, saved: Mapping[str, Checkpoint]) -> Table:
    ways = [Way(BOOT, _boot)]
    ways += [Way(name, _fork(checkpoint)) for name, checkpoint in saved.items()]
    ways.append(Way(POOLED, _pooled(stack, saved[FORK])))
    bars: list[Bar] = [AtMost(FORK, 0.075), AtMost(POOLED, 0.008), AtLeast(FORK, 30, BOOT)]
    bars += [AtLeast(FORK, 7, RESTORE), AtLeast(LARGE, 1 / LARGE_BAR, FORK)]
    missing = []
    guest = the_guest(scratch)
    peer = Libvirt.prepare(stack, scratch, guest.binary, guest.kernel, guest.initrd)
    if isinstance(peer, str):
        missing.append(Missing(RESTORE, peer))
    else:
        ways.append(Way(RESTORE, lambda: {"": peer.restored(scratch / "saved")}))
    notes = [
        "Every fork has a disk, a network card and an identity of its own; the clock stops when a command has run in it."
    ]
    notes += [f"{name}: checkpoint {c.took * 1000:.0f} ms, of which the machine stood still {c.pause * 1000:.0f} ms"
              for name, c in saved.items()]  # fmt: skip
    return Table("request → first command answered in a fork (tiny)", ways, BOOT, notes, missing, bars=bars)


def _boot() -> Mapping[str, float]:
    began = time.perf_counter()
    with Machine(**DISK) as machine:
        machine.run(["true"])
        return {"": time.perf_counter() - began}


def _fork(checkpoint: Checkpoint) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        began = time.perf_counter()
        [restored] = wait_for(fork_many(checkpoint, 1))
        with Machine.around(AsyncMachine.around(Connected.of_fork(restored))) as machine:
            machine.run(["true"])
            return {"": time.perf_counter() - began}

    return run


def _pooled(stack: ExitStack, checkpoint: Checkpoint) -> Callable[[], Mapping[str, float]]:
    pools: list[Pool] = []

    def run() -> Mapping[str, float]:
        if not pools:
            pools.append(stack.enter_context(Pool(checkpoint, 2)))
        while pools[0].waiting < 2:
            time.sleep(0.05)
        began = time.perf_counter()
        with pools[0].take() as machine:
            machine.run(["true"])
            spent = time.perf_counter() - began
        while pools[0].waiting < 2:
            time.sleep(0.05)
        return {"": spent}

    return run


# ── many at once ──


_WHO = "cat /etc/machine-id /sys/class/net/eth0/address; hostname; head -c 32 /dev/urandom | base64"


def _at_once(checkpoint: Checkpoint) -> Table:
    notes = [f"{MANY} forks with an identity each (TINAMOU_BENCH_FORKS says how many)"]

    def run() -> Mapping[str, float]:
        figures, share, distinct = wait_for(_many(checkpoint))
        notes.append(f"memory (PSS) {share:.1f} MB each; distinct machine ids, MACs, names, random numbers: {distinct}")
        return figures

    name = f"{MANY} forks"
    bars: list[Bar] = [AtMost(name, 8.0), AtMost(f"{name}: all gone", 2.0)]
    return Table("many forks at once: all have answered", [Way(name, run)], name, notes, bars=bars)


async def _many(checkpoint: Checkpoint) -> tuple[Mapping[str, float], float, list[int]]:
    began = time.perf_counter()
    machines = [AsyncMachine.around(Connected.of_fork(one)) for one in await fork_many(checkpoint, MANY)]
    started = time.perf_counter() - began
    answers = await asyncio.gather(*(machine.run(["true"]) for machine in machines))
    answered = time.perf_counter() - began
    assert len(answers) == MANY
    who = await asyncio.gather(*(machine.run(_WHO) for machine in machines))
    distinct = [len(set(column)) for column in zip(*(one.text.split("\n") for one in who), strict=True)]
    share = statistics.median(_share(machine.record.pid) for machine in machines)
    began = time.perf_counter()
    await asyncio.gather(*(machine.kill() for machine in machines))
    return {"": answered, "all started": started, "all gone": time.perf_counter() - began}, share, distinct


def _share(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
