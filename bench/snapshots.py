"""Live snapshots of 1, 2 and 4 disks under a guest that writes and flushes, tinamou against virsh, same guest, one run.

``python -m bench.snapshots [--count 100] [--disks 1,2,4] [--without-virsh] [--json FILE]``. Every state is read back: the
guest numbers its writes, so each snapshot must hold exactly what had been flushed up to some number, on all disks at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.snapshots_libvirt import LibvirtGuest
from bench.snapshots_states import States, moment
from tinamou.machine.attended import AsyncMachine
from tinamou.machine.snapshots import history_of, take

GAP = 0.05


@dataclass
class Result:
    """One guest with one number of disks; milliseconds."""

    tool: str
    disks: int
    snapshots: int
    transaction: float
    whole: float
    worst: float
    quiet_write: float
    longest_write: float
    states: States = field(default_factory=States)


def build_writer(folder: Path) -> bytes:
    """The guest's program, linked statically."""
    source = Path(__file__).with_name("writer.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "writer", source], check=True)
    return (folder / "writer").read_bytes()


class TinamouGuest:
    """The tiny guest with empty disks, run by tinamou."""

    tool = "tinamou"

    def __init__(self, disks: int, depth: int) -> None:
        self.depth = depth
        self.machine = AsyncMachine("tiny", keep=True, disk=[{"size": "64M"} for _ in range(disks)], net=[])
        self.tops: list[dict[str, str]] = []
        self.counts: list[tuple[int, int]] = []

    async def start(self) -> None:
        """Boot until the guest answers."""
        await self.machine.start()

    async def run(self, command: str, data: bytes | None = None) -> str:
        """A shell command in the guest, and what it printed."""
        return (await self.machine.run(command, input=data)).text

    async def snapshot(self, name: str) -> tuple[float, float]:
        """Seconds of the QMP transaction, and of all of it."""
        began = time.perf_counter()
        taken = await take(self.machine.record, name, depth=self.depth)
        return taken.transaction, time.perf_counter() - began

    async def finish(self) -> list[list[Path]]:
        """Cut the power; the files of every snapshot, disk by disk."""
        record = self.machine.record
        history = history_of(record)
        await self.machine.kill()
        return [[Path(record.directory) / one.files[disk] for disk in sorted(one.files)] for one in history.snapshots]

    async def remove(self) -> None:
        """Leave nothing."""
        from tinamou.state import machines

        for record in machines.machines():
            machines.remove(Path(record.directory))


async def measure(guest: TinamouGuest | LibvirtGuest, disks: int, count: int, writer: bytes) -> Result:
    """Boot, write, take ``count`` snapshots, cut the power, read every state back."""
    await guest.start()
    try:
        await guest.run("cat > /writer && chmod +x /writer", writer)
        devices = " ".join(f"/dev/vd{chr(ord('a') + number)}" for number in range(disks))
        last = devices.split()[-1]
        await guest.run(f"while [ ! -b {last} ]; do sleep 0.1; done")
        await guest.run(f"/writer /state {devices} >/errors 2>&1 & sleep 3; kill -USR1 $!; echo $! >/pid; sleep 5")
        quiet = int((await guest.run("cat /state")).split()[1]) / 1000
        await guest.run("kill -USR1 $(cat /pid)")
        spent, bounds = [], []
        for number in range(count):
            before = int((await guest.run("cat /state")).split()[0]) if number % 10 == 0 else None
            spent.append(await guest.snapshot(f"n{number}"))
            bounds.append(before)
            await asyncio.sleep(GAP)
        longest = int((await guest.run("cat /state")).split()[1]) / 1000
        files = await guest.finish()
        states = check_states(files, bounds)
    finally:
        await guest.remove()
    transactions, wholes = ([1000 * one[index] for one in spent] for index in (0, 1))
    medians = statistics.median(transactions), statistics.median(wholes)
    return Result(guest.tool, disks, count, *medians, max(wholes), quiet, longest, states)


def check_states(files: list[list[Path]], bounds: list[int | None]) -> States:
    """Which snapshots are a moment of the guest's, not earlier than what it had said was flushed, alike on all disks."""
    states, last = States(), 0
    for paths, bound in zip(files, bounds, strict=True):
        numbers = [moment(path) for path in paths]
        whole = -1 not in numbers and max(numbers) - min(numbers) <= 1 and numbers == sorted(numbers, reverse=True)
        exact = whole and min(numbers) >= max(last, bound or 0)
        states.exact += exact
        states.wrong += [] if exact else [f"{paths[0].name}: {numbers}, at least {max(last, bound or 0)}"]
        last = max(last, min(numbers))
    return states


async def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--disks", default="1,2,4")
    options.add_argument("--depth", type=int, default=16, help="flatten chains deeper than this")
    options.add_argument("--without-virsh", action="store_true")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-") as folder:
        import os

        os.environ["TINAMOU_STATE"] = f"{folder}/state"
        writer = build_writer(Path(folder))
        for disks in map(int, given.disks.split(",")):
            guests: list[TinamouGuest | LibvirtGuest] = [TinamouGuest(disks, given.depth)]
            if not given.without_virsh:
                guests.append(LibvirtGuest(disks, Path(folder)))
            for guest in guests:
                results.append(await measure(guest, disks, given.count, writer))
                print(line(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in results], indent=1))


def line(result: Result) -> str:
    """One row for people."""
    exact = f"{result.states.exact} of {result.snapshots} exact"
    return (
        f"{result.tool:8} {result.disks} disks: transaction {result.transaction:6.1f} ms, whole {result.whole:6.1f} ms "
        f"(worst {result.worst:6.1f}), longest guest write {result.longest_write:5.1f} ms "
        f"(without snapshots {result.quiet_write:5.1f}), {exact} {result.states.wrong[:3] or ''}"
    )


if __name__ == "__main__":
    asyncio.run(main())
