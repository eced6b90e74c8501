"""Fifty machines started at once, until all have answered: tinamou, virsh in a loop, plain QEMUs beside each other."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.boot import Guest, article, the_guest
from bench.framework import AtLeast, Bar, Missing, Table, Way
from bench.libvirt import Libvirt
from tinamou.aio import Machine

__all__ = ["tables"]

MANY = int(os.environ.get("TINAMOU_BENCH_MACHINES", "50"))
TINAMOU, VIRSH, PLAIN = "tinamou", "virsh start, in a loop", "plain QEMU, at once"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table."""
    guest = the_guest(scratch)
    ways, missing, bars = [Way(TINAMOU, _tinamou), Way(PLAIN, lambda: _plain(guest))], [], list[Bar]()
    bars.append(AtLeast(TINAMOU, 1.3, PLAIN))
    peer = Libvirt.prepare(stack, scratch, guest.binary, guest.kernel, guest.initrd)
    if isinstance(peer, str):
        missing.append(Missing(VIRSH, peer))
    else:
        ways.append(Way(VIRSH, lambda: {"": peer.many_answered(MANY)}))
        bars.append(AtLeast(TINAMOU, 2, VIRSH))
    notes = [f"{MANY} tiny guests of 512 MiB (TINAMOU_BENCH_MACHINES says how many)."]
    return [Table(f"{MANY} machines at once: all have answered", ways, PLAIN, notes, missing, bars=bars)]


def _tinamou() -> Mapping[str, float]:
    async def whole() -> float:
        began = time.perf_counter()
        machines = [Machine() for _ in range(MANY)]
        try:
            await asyncio.gather(*(_answered(one) for one in machines))
            return time.perf_counter() - began
        finally:
            await asyncio.gather(*(one.kill() for one in machines), return_exceptions=True)

    return {"": asyncio.run(whole())}


async def _answered(machine: Machine) -> None:
    await machine.start()
    await machine.run(["true"])


def _plain(guest: Guest) -> Mapping[str, float]:
    """The usual line, as often as that, each with a port of its own for the agent."""
    folders = [guest.scratch / f"plain-{number}" for number in range(MANY)]
    for folder in folders:
        folder.mkdir()
    try:
        began = time.perf_counter()
        with ThreadPoolExecutor(MANY) as pool:
            ended = list(pool.map(lambda folder: article(guest, "console=ttyS0", folder, seconds=900), folders))
        return {"": max(one[""] for one in ended), "to their end": time.perf_counter() - began}
    finally:
        for folder in folders:
            shutil.rmtree(folder)
