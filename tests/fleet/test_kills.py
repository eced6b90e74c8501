"""Moves there and back, cut short at random moments: one machine, nothing synced lost, on the host its record names."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from two_hosts import Two
from typed import TINAMOU, call, eventually

from tinamou.state import moves
from tinamou.state.record import Record, read

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("back")]

ROUNDS = int(os.environ.get("TINAMOU_KILLS", "12"))
"""How many moves the long test cuts short."""
WRITES = (
    "(i=$(dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -1 | tr -dc 0-9); i=${i:-0}; while :; do i=$((i+1)); "
    "echo $i | dd of=/dev/vda bs=512 seek=8 conv=fsync 2>/dev/null || exit; echo synced $i. >/dev/console; done) "
    ">/dev/null 2>&1 &"
)
"""What is synced is a number on the disk, and then the same on the console."""
READ = "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -1"
VICTIMS = ("mover", "receiver", "QEMU here", "QEMU there", "line")
LINES = ("asking", "copying disks", "sending memory")
PHASES = ((0, moves.LEAVING), (1, moves.ARRIVING), (1, moves.READY), (0, moves.LEFT), (1, ""))
"""The source's (0) or the target's (1) record, and what it says then."""


class Side:
    """One of the two hosts: its state directory, and what it calls the other one."""

    def __init__(self, state: Path, other: str) -> None:
        self.path = state / "machines/web"
        self.places = {"TINAMOU_STATE": str(state), "TINAMOU_RUN": str(state)}
        self.other = other

    def record(self) -> Record | None:
        """The machine's record here, while it is being replaced as well."""
        return read(self.path)

    def say(self, *words: str) -> str:
        """What tinamou prints here."""
        done = call(*words, **self.places)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def owner(self) -> bool:
        """Whether the machine is this host's own."""
        found = self.record()
        return found is not None and not moves.phase(found)

    def write(self) -> None:
        """Have its guest write on from what its disk has."""
        self.say("exec", "web", "--", "sh", "-c", WRITES)


class Told:
    """What a machine's console on one host said so far, also once its file is removed."""

    def __init__(self, side: Side) -> None:
        self._file = (side.path / "serial.log").open("rb")

    def highest(self) -> int:
        """The last number it said is synced."""
        self._file.seek(0)
        return max(map(int, re.findall(rb"synced (\d+)\.", self._file.read())), default=0)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _killed(victim: str, mover: subprocess.Popen[bytes], source: Side, target: Side) -> bool:
    """Kill it; whether there was one."""
    here, away = source.record(), target.record()
    pids: list[int] = []
    with contextlib.suppress(OSError):
        if victim == "mover":
            pids = [mover.pid]
        elif victim == "line":
            pids = _children(mover.pid)
        elif victim == "receiver" and away is not None and moves.phase(away) in (moves.ARRIVING, moves.READY):
            pids = [int(away.move["pid"])]
        elif victim == "QEMU here" and here is not None:
            pids = [here.pid]
        elif victim == "QEMU there" and away is not None and moves.phase(away) != moves.LEFT:
            pids = [away.pid]
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGKILL)
    return any(pids)


def _when(chance: random.Random, source: Side, target: Side) -> tuple[str, Callable[[bytes], bool], float]:
    """A moment of a move: what it is called, whether it has come, by what the mover said, and seconds after it."""
    later = chance.choice((0.0, chance.uniform(0, 0.05), chance.uniform(0, 1)))
    if chance.random() < 0.4:
        line = chance.choice(LINES)
        return f"{line} + {later:.3f} s", lambda said: line.encode() in said, later
    which, phase = chance.choice(PHASES)
    side = (source, target)[which]

    def reached(_: bytes) -> bool:
        found = side.record()
        return found is not None and moves.phase(found) == phase

    return f"{('source', 'target')[which]} {phase or 'owner'} + {later:.3f} s", reached, later


def _cut_short(chance: random.Random, source: Side, target: Side) -> str:
    """A move of which something is killed at a random moment; what that was."""
    victim = chance.choice(VICTIMS)
    moment, come, later = _when(chance, source, target)
    words = [*TINAMOU, "move", "web", source.other]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env={**os.environ, **source.places}, **pipes) as mover:  # type: ignore[call-overload]
        os.set_blocking(mover.stderr.fileno(), False)
        said = b""
        while mover.poll() is None and not come(said):
            said += mover.stderr.read() or b""
            time.sleep(0.002)
        time.sleep(later)
        hit = _killed(victim, mover, source, target)
        os.set_blocking(mover.stderr.fileno(), True)
        said += mover.communicate(timeout=240)[1]
    return f"{victim} at {moment}{'' if hit else ' (nothing to kill)'}: {mover.returncode}, {said.decode()[-400:]!r}"


def _settled(source: Side, target: Side) -> Side:
    """Both hosts put right what was cut short; whose the machine is."""
    source.say("ls")
    eventually(lambda: target.say("ls") is not None and not _attended(target), "the receiver ends", 120)
    target.say("ls")
    here = source.record()
    assert here is not None
    if moves.phase(here) == moves.LEFT and not here.move["told"]:
        source.say("move", "web", source.other)
    owners = [side for side in (source, target) if side.owner()]
    assert len(owners) == 1, [side.record() for side in (source, target)]
    named = source.record()
    assert named is not None
    assert (moves.phase(named) == moves.LEFT) == (owners[0] is target)
    return owners[0]


def _attended(side: Side) -> bool:
    found = side.record()
    return found is not None and bool(moves.phase(found)) and moves.attended(found)


def _cut_moves(two: Two, state: Path, seed: int, rounds: int, disk: str = 'size="16M"') -> None:
    sides = [Side(state, "there"), Side(two.there, "back")]
    sides[0].say("run", "-d", "--name", "web", "--memory", "160M", "--net", "none", "--set", f"disk=[{{{disk}}}]")
    sides[0].write()
    synced = 0
    for number in range(rounds):
        chance = random.Random(f"{seed}/{number}")
        source, target = sides
        told = Told(source)
        how = f"seed {seed}, round {number}: {_cut_short(chance, source, target)}"
        print(how, flush=True)
        owner = _settled(source, target)
        running = [one for one in (side.record() for side in sides) if one is not None and one.running]
        assert len([one for one in running if not moves.phase(one)]) <= 1, how
        assert all(moves.phase(one) in ("", moves.READY) for one in running), how
        synced = max(synced, told.highest(), Told(owner).highest() if (owner.path / "serial.log").exists() else 0)
        found = owner.record()
        assert found is not None
        if not found.running:
            owner.say("start", "web")
        assert int(owner.say("exec", "web", "--", "sh", "-c", READ)) >= synced, how
        if not found.running:
            owner.write()
        now = Told(owner)
        before = now.highest()
        eventually(lambda now=now, before=before: now.highest() > before, f"it writes on: {how}")
        synced = max(synced, now.highest())
        sides.sort(key=lambda side, owner=owner: side is not owner)


def test_a_move_that_is_cut_short(two: Two, state: Path) -> None:
    _cut_moves(two, state, seed=90, rounds=1)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_moves_that_are_cut_short(two: Two, state: Path) -> None:
    _cut_moves(two, state, seed=int(os.environ.get("TINAMOU_SEED", "1")), rounds=ROUNDS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_moves_with_a_disk_that_both_hosts_see(two: Two, state: Path, open_folder: Path) -> None:
    file = open_folder / "db.raw"
    file.write_bytes(bytes(16 << 20))
    _cut_moves(two, state, seed=int(os.environ.get("TINAMOU_SEED", "1")), rounds=ROUNDS, disk=f'path="{file}"')
