"""Verbs interrupted at random lines of the program, on a machine whose QEMU is a stand-in: what they say, and leave."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from interrupting import judged, note, state_of
from leftovers import Leftovers
from lines import LINES, Line, material
from moments import EARLY, LONG, Ended, Stage, stage
from typed import begin, call, tinamou

from tinamou.cli.verbs import GROUPS, VERBS, module_of

MOMENTS = int(os.environ.get("TINAMOU_MOMENTS", "1"))
SEED = os.environ.get("TINAMOU_SEED", "")
OFTEN = ("run -d", "start", "stop", "rm -f", "net add m passt", "disk add", "snapshot create", "rename", "export", "ls")
"""Lines that every run of the tests interrupts; the others are slow."""


def verbs() -> Iterator[str]:
    """Every verb, those of groups with their group's name before."""
    for verb in VERBS:
        group = module_of(verb).app if verb in GROUPS else None
        yield from (f"{verb} {inner}" for inner in group.verbs) if group else (verb,)
        if group and group.default:
            yield verb


def test_every_verb_has_a_line() -> None:
    assert {line.verb for line in LINES} == set(verbs())


@pytest.fixture(scope="module")
def here(one_fake: Path) -> Iterator[Stage]:
    with stage(one_fake, material) as ready:
        yield ready


STARTS = ("run", "start", "restart", "pool create")
"""Verbs after which a machine may run; interrupted when all is done but the telling of it, it does."""
ASKS = ("stop", "restart")
"""Verbs that ask a guest to go, which it may do when nobody waits for it any more."""


class Rounds:
    """A line that is done again and again, each time from the same state, and cut short."""

    def __init__(self, line: Line, here: Stage) -> None:
        self.line, self.here = line, here
        self.words = self._placed(line.words)
        self.how = {"env": {name: self._placed(value) for name, value in line.env.items()}}
        self.alive = line.wanted in ("running", "paused")
        here.brought(line.wanted, anew=True)
        for words in line.before:
            here.warm.well(self._placed(words), **self.how)
        if line.before:
            here.keep(line.words)
        here.warm.done(self.words, after=line.after, warm=str(here.work.with_name("modules")), **self.how)
        self.changed = True
        self.again()
        self.before = here.files()
        self.usual = here.warm.done(self.words, after=line.after, count=True, **self.how)
        self.sound("done whole", self.usual)
        self.whole = here.files()
        self.again()
        self.seconds = here.warm.done(self.words, after=line.after, **self.how).seconds
        self.again()
        self.fresh = here.warm.fresh(self.words, signal.SIGINT, line.after, self.how["env"]).seconds

    def _placed(self, text: str) -> str:
        return text.replace("{w}", str(self.here.work))

    def again(self) -> None:
        """Everything as it was before the line."""
        if self.changed or not self.line.reads:
            self.here.brought(self.line.wanted, anew=not self.alive or self.line.adds)
            if self.line.before:
                self.here.again(self.line.words)
        self.changed = False

    def sound(self, where: str, ended: Ended, known: tuple[set[str], ...] = ()) -> None:
        """Fails where something is half done, files are not as ``known``, or a process belongs to nothing."""
        starts = self.line.verb in STARTS and (ended.status == 0 or self.here.left_running())
        end = time.monotonic() + 60
        while True:
            wrong = self.here.unsound(alive=self.alive or starts)
            new = self.here.files()
            if not wrong and (not known or new in known):
                return
            assert time.monotonic() < end, f"{where}: {wrong} {[sorted(new ^ one) for one in known]} {ended.said}"
            if ended.status and self.line.verb in ASKS:  # the guest may go a moment later: who looks then puts it right
                self.here.warm.well("ls")
            time.sleep(0.02)

    def one(self, number: signal.Signals, at: int, after: float, kind: str) -> str:
        """One round, in a sentence: all was done, or nothing."""
        self.again()
        before = self.here.files() if self.alive else self.before
        if kind == "fresh":
            ended = self.here.warm.fresh(self.words, number, after, self.how["env"])
        else:
            ended = (self.here.cold if kind == "cold" else self.here.warm).done(self.words, at, number, after, **self.how)
        place = f"line {at} of {self.usual.lines} ({ended.where})" if at else f"{after:.3f} s, {kind} {ended.where}"
        whole = ended.status < 128 and (ended.status == self.usual.status or self.line.after != LONG)
        if ended.where == EARLY:
            told = f"{self.words} at {place} by {number.name}: status {ended.status}"
            assert ended.status in (1, -number, 128 + number), f"{told}: {ended.said}"
        else:
            told = judged(f"{self.words} at {place}", number, 0 if whole else ended.status, ended.said)
        asked = self.line.verb in ASKS  # the guest may go or not
        self.sound(told, ended, () if whole or asked else (before, self.whole, before | self.whole))
        return told


@pytest.mark.vm
@pytest.mark.parametrize(
    "line",
    [pytest.param(one, marks=[] if one.words.startswith(OFTEN) else pytest.mark.slow, id=one.words[:40]) for one in LINES],
)
@pytest.mark.timeout(300 + 20 * MOMENTS)
def test_at_random_moments(line: Line, here: Stage) -> None:
    """Of ten moments one is any of a fresh interpreter's, six are lines of the program, and three times of what it takes."""
    dice = random.Random(line.words + SEED)
    rounds = Rounds(line, here)
    usual = rounds.usual
    note(f"{line.words}: {usual.status}, {usual.lines} lines, {rounds.seconds:.3f} s, {usual.said.strip()[:150]!r}")
    for moment in range(MOMENTS):
        number = (signal.SIGINT, signal.SIGTERM)[moment % 2 ^ moment // 10 % 2]
        kind = {0: "fresh", 1: "cold"}.get((moment + 2) % 10, "warm")
        by_time = kind == "fresh" or moment % 3 == 2 or not usual.lines
        at = 0 if by_time else dice.randint(1, usual.lines)
        seconds = rounds.fresh if kind == "fresh" else rounds.seconds
        after = dice.uniform(0, seconds) if by_time else min(line.after * 2, usual.seconds * 20 + 60)
        note(rounds.one(number, at, after, kind))


@pytest.mark.vm
@pytest.mark.slow
def test_a_guest_that_does_not_go_keeps_nobody(fake_qemu: Path, leftovers: Leftovers) -> None:
    """Ctrl-C ends the wait for it at once, however long it was to be."""
    fake_qemu.write_text(fake_qemu.read_text().replace('"system_powerdown" | "quit"', '"quit"'))
    tinamou("run", "-d", "--name", "m", "--disk", "size=8M", "--no-wait", "--set", "memory.size=192M")
    process = begin("stop", "m")
    time.sleep(12)  # QEMU and the agent have been asked
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    judged("stop", signal.SIGINT, process.returncode, said.decode())
    assert process.returncode == 130 and state_of("m") == "running"
    call("rm", "-f", "m")
    assert leftovers.settle() == []
