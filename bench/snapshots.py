"""Live snapshots of 1, 2 and 4 disks under a guest that writes and flushes, tinamou against virsh, same guest, one run.

``python -m bench.snapshots [--count 100] [--disks 1,2,4] [--only tinamou,command,virsh] [--json FILE]``, or a table of
``script/bench snapshots`` with fewer snapshots. Every state is read back: the guest numbers its writes, so each snapshot
must hold exactly what had been flushed up to some number, on all disks at once. The guest's writes are timed as long without
snapshots, half of it before and half after, as with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench.framework import AtLeast, Missing, Table, Way
from bench.snapshots_libvirt import LibvirtGuest
from bench.snapshots_states import States, moment
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.snapshots import history_of, take

GAP = 0.05
"""Seconds between two snapshots."""
ASKED = 10
"""The guest is asked what it has flushed before every so many snapshots."""


@dataclass
class Result:
    """One guest with one number of disks; milliseconds. Guest writes are (longest, 99th percentile)."""

    tool: str
    disks: int
    snapshots: int
    transaction: float
    whole: float
    worst: float
    quiet: tuple[float, float]
    busy: tuple[float, float]
    states: States = field(default_factory=States)


def build_writer(folder: Path) -> bytes:
    """The guest's program, linked statically."""
    source = Path(__file__).with_name("writer.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "writer", source], check=True)
    return (folder / "writer").read_bytes()


class TinamouGuest:
    """The tiny guest with empty disks, run by tinamou; snapshots are taken by this process."""

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


async def measure(guest: Guest, disks: int, count: int, writer: bytes) -> Result:
    """Boot, write, take ``count`` snapshots, cut the power, read every state back."""
    await guest.start()
    try:
        await guest.run("cat > /writer && chmod +x /writer", writer)
        devices = " ".join(f"/dev/vd{chr(ord('a') + number)}" for number in range(disks))
        last = devices.split()[-1]
        await guest.run(f"while [ ! -b {last} ]; do sleep 0.1; done")
        await guest.run(f"/writer /state {devices} >/errors 2>&1 & sleep 3; echo $! >/pid")
        questions = -(-count // ASKED)
        before = await undisturbed(guest, count * GAP, questions)
        began = time.perf_counter()
        spent, bounds = await disturbed(guest, count)
        busy = await timed(guest)
        after = await undisturbed(guest, time.perf_counter() - began - count * GAP, questions)
        quiet = (max(before[0], after[0]), max(before[1], after[1]))
        files = await guest.finish()
        states = check_states(files, bounds)
    finally:
        await guest.remove()
    transactions, wholes = ([1000 * one[index] for one in spent] for index in (0, 1))
    medians = statistics.median(transactions), statistics.median(wholes)
    return Result(guest.tool, disks, count, *medians, max(wholes), quiet, busy, states)


async def timed(guest: Guest) -> tuple[float, float]:
    """Milliseconds of the longest write since this was last asked, and of the 99th percentile."""
    words = (await guest.run("cat /state; kill -USR1 $(cat /pid)")).split()
    return int(words[1]) / 1000, int(words[2]) / 1000


async def undisturbed(guest: Guest, seconds: float, questions: int) -> tuple[float, float]:
    """The same of so many seconds without snapshots, in which the guest is asked as often as it is with them."""
    await timed(guest)
    for _ in range(questions):
        await guest.run("cat /state")
        await asyncio.sleep(max(1.0, seconds) / questions)
    return await timed(guest)


async def disturbed(guest: Guest, count: int) -> tuple[list[tuple[float, float]], list[int | None]]:
    """Take snapshots; what each took, and now and then what the guest had said before was flushed."""
    spent: list[tuple[float, float]] = []
    bounds: list[int | None] = []
    for number in range(count):
        bounds.append(int((await guest.run("cat /state")).split()[0]) if number % ASKED == 0 else None)
        spent.append(await guest.snapshot(f"n{number}"))
        await asyncio.sleep(GAP)
    return spent, bounds


class CommandGuest(TinamouGuest):
    """The same, but snapshots are taken by the command ``tinamou snapshot create``."""

    tool = "command"

    async def snapshot(self, name: str) -> tuple[float, float]:
        """Seconds of the QMP transaction, as the command says, and of the command from start to exit."""
        words = ["snapshot", "create", self.machine.record.name, name, "--depth", str(self.depth), "--json"]
        began = time.perf_counter()
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(Path(sys.executable).with_name("tinamou"), *words, stdout=pipe)
        said, _ = await process.communicate()
        spent = time.perf_counter() - began
        return json.loads(said)["transaction_seconds"], spent


Guest = TinamouGuest | LibvirtGuest


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
    options.add_argument("--only", default="tinamou,command,virsh")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-") as folder:
        import os

        os.environ["TINAMOU_STATE"] = f"{folder}/state"
        writer = build_writer(Path(folder))
        for disks in map(int, given.disks.split(",")):
            for tool in given.only.split(","):
                guest = guest_of(tool, disks, given.depth, Path(folder))
                results.append(await measure(guest, disks, given.count, writer))
                print(line(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in results], indent=1))


def guest_of(tool: str, disks: int, depth: int, folder: Path) -> Guest:
    """A guest by the tool that takes its snapshots."""
    if tool == "virsh":
        return LibvirtGuest(disks, folder)
    return (CommandGuest if tool == "command" else TinamouGuest)(disks, depth)


COUNT = 20
TRANSACTION, WHOLE = "transaction", "whole"
TINAMOU, COMMAND, VIRSH = "tinamou", "tinamou snapshot create", "virsh snapshot-create-as"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table for each number of disks; a round is a guest's life with so many snapshots."""
    scratch.chmod(0o711)
    writer = build_writer(scratch)
    return [_table(disks, scratch, writer) for disks in (1, 2, 4)]


def _table(disks: int, scratch: Path, writer: bytes) -> Table:
    def once(tool: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            return _figures(asyncio.run(measure(guest_of(tool, disks, 16, Path(folder)), disks, COUNT, writer)))

    ways = [Way(name, partial(once, tool)) for name, tool in ((TINAMOU, "tinamou"), (COMMAND, "command"))]
    here = bool(shutil.which("libvirtd") and shutil.which("virsh"))
    ways += [Way(VIRSH, partial(once, "virsh"))] if here else []
    missing = [] if here else [Missing(VIRSH, "libvirt is not installed (script/packages bench)")]
    whole = f"{VIRSH}: {WHOLE}"
    bars = [AtLeast(f"{TINAMOU}: {TRANSACTION}", 15, whole), AtLeast(f"{COMMAND}: {WHOLE}", 1, whole)]
    title = f"{COUNT} snapshots of {disks} disk{'s' if disks > 1 else ''} under a guest that writes 4 KiB and flushes"
    notes = ("medians of a round's snapshots; every state is read back and must be exactly what had been flushed",)
    return Table(title, ways, VIRSH if here else TINAMOU, notes, missing, bars=bars)


def _figures(got: Result) -> dict[str, float]:
    """A round's figures in seconds. Raises AssertionError when a snapshot is not what it must be."""
    if got.states.wrong:
        raise AssertionError(f"a snapshot is no moment of the guest's: {got.states.wrong[0]}")
    figures = {WHOLE: got.whole, "longest guest write": got.busy[0], "… without snapshots": got.quiet[0]}
    figures |= {"guest write, p99": got.busy[1], "guest write without snapshots, p99": got.quiet[1]}
    if got.tool != "virsh":
        figures[TRANSACTION] = got.transaction
    return {name: value / 1000 for name, value in figures.items()}


def line(result: Result) -> str:
    """One row for people."""
    exact = f"{result.states.exact} of {result.snapshots} exact"
    return (
        f"{result.tool:8} {result.disks} disks: transaction {result.transaction:6.1f} ms, whole {result.whole:6.1f} ms "
        f"(worst {result.worst:6.1f}), guest write longest {result.busy[0]:5.1f} ms p99 {result.busy[1]:5.1f} "
        f"(without snapshots {result.quiet[0]:5.1f} p99 {result.quiet[1]:5.1f}), {exact} {result.states.wrong[:3] or ''}"
    )


if __name__ == "__main__":
    asyncio.run(main())
