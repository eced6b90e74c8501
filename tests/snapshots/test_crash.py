"""kill -9 of QEMU, of tinamou, of both, at random moments of every operation: nothing flushed is lost, nothing is left.

``TINAMOU_CRASH_ROUNDS`` is the number of rounds for each way of dying (default 4); ``TINAMOU_CRASH_SEED`` repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bare_machine import BareMachine, run

from tinamou.control import Session
from tinamou.control.commands import monitor
from tinamou.errors import ControlError
from tinamou.snapshots.check import check
from tinamou.snapshots.create import create
from tinamou.snapshots.graph import Opening, node_of, open_overlays
from tinamou.snapshots.history import load
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import fresh_name, write_overlay_part
from tinamou.snapshots.merge import tidy
from tinamou.snapshots.reconcile import reconcile
from tinamou.system.lock import exclusive

ROUNDS = int(os.environ.get("TINAMOU_CRASH_ROUNDS", "4"))
SEED = int(os.environ.get("TINAMOU_CRASH_SEED", str(time.time_ns() % 100000)))
SLOTS = 16
SLOT = 64 << 10
Build = Callable[..., BareMachine]


@dataclass
class Writer:
    """Writes numbers round and round over the slots of every disk, flushing each: number N stands in slot N modulo 16."""

    disks: int
    begun: int = 0
    flushed: int = 0
    last: dict[int, int] = field(default_factory=dict)

    async def go_on(self, session: Session) -> None:
        while True:
            number = self.flushed + 1
            self.begun = number
            for disk in range(self.disks):
                device = f"/machine/peripheral/disk{disk}-dev/virtio-backend"
                command = f"write -P {number % 251} {number % SLOTS * SLOT} {SLOT}"
                await monitor(session, f'qemu-io -d {device} "{command}"')
                await monitor(session, f'qemu-io -d {device} "flush"')
            self.flushed = number


def numbers_in(path: Path) -> int:
    """The number a disk's state goes up to; an error when its slots were never together like that."""
    raw = path.with_suffix(".slots")
    argv = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", f"if={path}", f"of={raw}", f"bs={SLOT}", f"count={SLOTS}"]
    subprocess.run(argv, check=True, capture_output=True)
    data = raw.read_bytes()
    raw.unlink()
    slots = []
    for slot in range(SLOTS):
        piece = data[slot * SLOT : (slot + 1) * SLOT]
        assert len(set(piece)) == 1, f"{path.name}: slot {slot} is torn"
        slots.append(piece[0])
    return next((n for n in range(20000) if slots == expected(n)), -1)


def expected(number: int) -> list[int]:
    """What the slots hold when everything up to ``number`` was written and nothing after it."""
    slots = [0xBA] * SLOTS
    for one in range(max(1, number - SLOTS + 1), number + 1):
        slots[one % SLOTS] = one % 251
    return slots


def operator(m: BareMachine, mode: str, seed: int) -> subprocess.Popen[str]:
    argv = [sys.executable, str(Path(__file__).with_name("operate.py")), str(m.directory), mode, str(seed)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    return process


async def write_until(m: BareMachine, writer: Writer, seconds: float, then: Callable[[], None]) -> None:
    async with m.session("qmp.sock2") as (session, _):
        task = asyncio.ensure_future(writer.go_on(session))
        await asyncio.sleep(seconds)
        then()
        await asyncio.sleep(0.02)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, ControlError):
            pass


def put_right(m: BareMachine, live: bool) -> None:
    async def work() -> None:
        if not live:
            with exclusive(m.directory / "operation.lock"):
                await tidy(m.disks, await reconcile(m.disks))
            return
        async with m.session() as (_, disks):
            with exclusive(m.directory / "operation.lock"):
                await tidy(disks, await reconcile(disks))

    run(work())


def verify(m: BareMachine, writer: Writer | None) -> None:
    """With the machine off."""
    found = run(check(m.disks, load(m.directory)))
    assert [one for one in found if one.severity != "warning"] == []
    history = load(m.directory)
    assert history.intent is None
    for disk in history.disks:
        forest = read_forest(m.disks, history, disk)
        assert forest.layers.keys() == forest.needed(history) | {history.disks[disk].floor}
        numbers = {shot.number: numbers_in(m.directory / shot.files[disk]) for shot in history.snapshots}
        assert -1 not in numbers.values(), f"a snapshot of {disk} is no moment that ever was: {numbers}"
        now = numbers_in(m.directory / history.disks[disk].top)
        if writer:
            assert writer.flushed <= now <= writer.begun, f"{disk}: flushed {writer.flushed}, found {now}"
            in_order = [numbers[one] for one in sorted(numbers)]
            assert in_order == sorted(in_order)


def test_killed_when_qemu_had_opened_what_was_not_written_down_yet(machine: Build) -> None:
    """The overlay is open in QEMU, and the history says nothing of it: the next snapshot has the same number."""
    m = machine(count=1)
    m.start()

    async def work() -> list[str]:
        async with m.session() as (session, disks):
            history = await reconcile(disks)
            entry, file = history.disks["disk0"], fresh_name("disk0", history.counter + 1)
            with write_overlay_part(disks, file, entry.top, entry.format).open("r+b") as part:
                await open_overlays(session, [Opening(disks.path(file), node_of(file), {}, descriptor=part.fileno())])
            await create(disks, await reconcile(disks))
            return [shot.name for shot in load(m.directory).snapshots]

    assert run(work()) == ["s1"]
    assert [*m.directory.glob("*.part")] == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["qemu", "tinamou", "both"])
def test_killed_while_it_runs(machine: Build, victim: str) -> None:
    dice = random.Random(f"{SEED}-{victim}")
    print("seed", SEED)
    m = machine(count=2)
    writer = Writer(2)
    for _ in range(ROUNDS):
        m.start()
        process = operator(m, "live", dice.randrange(10**6))
        assert m.process is not None
        kill_qemu, kill_operator = m.process.kill, process.kill

        def strike(qemu: Callable[[], None] = kill_qemu, tool: Callable[[], None] = kill_operator) -> None:
            if victim in ("qemu", "both"):
                qemu()
            if victim in ("tinamou", "both"):
                tool()

        run(write_until(m, writer, dice.uniform(0.0, 0.6), strike))
        if victim == "qemu":
            process.wait(30)
        process.kill()
        process.wait()
        if victim == "tinamou":
            put_right(m, live=True)
        m.kill()
        put_right(m, live=False)
        verify(m, writer)
    print("writes flushed", writer.flushed, "snapshots taken", load(m.directory).counter)


@pytest.mark.slow
def test_killed_while_the_machine_is_off(machine: Build) -> None:
    dice = random.Random(SEED)
    print("seed", SEED)
    m = machine(count=2)
    for number in range(1, 6):
        for disk in ("disk0", "disk1"):
            m.write(disk, number, str(number * SLOT), str(SLOT))
    for _ in range(ROUNDS):
        process = operator(m, "off", dice.randrange(10**6))
        time.sleep(dice.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        time.sleep(0.05)
        put_right(m, live=False)
        verify(m, None)
        for disk in load(m.directory).disks.values():
            assert numbers_in(m.directory / disk.top) == 5
