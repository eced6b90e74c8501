"""Verbs interrupted at random lines of the program, on a machine whose QEMU is a stand-in: what they say, and leave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupting import judged, note, state_of, unfinished
from leftovers import Leftovers
from typed import begin, call, tinamou

pytestmark = pytest.mark.vm

MOMENTS = int(os.environ.get("TINAMOU_MOMENTS", "1"))
SEED = os.environ.get("TINAMOU_SEED", "")
AT_LINE = Path(__file__).with_name("at_line.py")
NEW = ("--name", "m", "--disk", "size=8M", "--no-wait", "--set", "memory.size=192M")

VERBS: list[tuple[str, str]] = [
    ("gone", "run -d " + " ".join(NEW)),
    ("gone", "run --no-wait --name m"),
    ("stopped", "start --no-wait m"),
    ("running", "stop m"),
    ("running", "kill m"),
    ("running", "pause m"),
    ("paused", "resume m"),
    ("running", "reset m"),
    ("running", "rm -f m"),
    ("stopped", "rm m"),
    ("running", "net add m passt"),
    ("stopped", "net add m user"),
    ("stopped", "disk add m size=8M"),
    ("stopped", "snapshot create m"),
    ("stopped", "check m"),
]
MORE: list[tuple[str, str]] = [
    ("fresh", "disk rm m disk0"),
    ("fresh", "disk resize m disk0 16M"),
    ("fresh", "snapshot rm m first"),
    ("fresh", "snapshot revert m first"),
    ("fresh", "snapshot flatten m"),
    ("fresh", "backup create m BACKUP"),
    ("running", "ls"),
    ("running", "show m"),
    ("running", "logs m"),
    ("running", "watch --once"),
    ("running", "host"),
    ("running", "host repair"),
    ("gone", "plan --why"),
    ("gone", "doctor"),
    ("gone", "image ls"),
]


def prepared(wanted: str) -> None:
    """The machine in the state a verb needs, whatever the round before made of it."""
    if wanted == "fresh":
        prepared("gone")
        prepared("stopped")
        tinamou("snapshot", "create", "m", "first")
        return
    while (now := state_of("m")) != wanted:
        if wanted == "gone":
            tinamou("rm", "-f", "m")
        elif now == "gone":
            tinamou("run", "-d", *NEW)
        elif now == "stopped":
            tinamou("start", "--no-wait", "m")
        elif wanted == "stopped":
            tinamou("kill", "m")
        else:
            tinamou("pause" if wanted == "paused" else "resume", "m")


def ran(at: int, number: signal.Signals, words: str, count: Path) -> tuple[int, str]:
    """How it ended, and what it said on stderr."""
    line = [sys.executable, str(AT_LINE), str(at), number.name, str(count), *words.split()]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("wanted", "words"),
    [*VERBS, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)],
    ids=lambda value: value[:24],
)
@pytest.mark.timeout(120 + 20 * MOMENTS)
def test_at_random_lines(
    wanted: str, words: str, state: Path, tmp_path: Path, fake_qemu: Path, leftovers: Leftovers
) -> None:
    dice = random.Random(words + SEED)
    prepared(wanted)
    count = tmp_path / "lines"
    words = words.replace("BACKUP", str(tmp_path / "backup"))
    usual, said = ran(0, signal.SIGINT, words, count)
    assert usual in (0, 1), said
    lines = int(count.read_text())
    for moment in range(MOMENTS):
        prepared(wanted)
        number, at = (signal.SIGINT, signal.SIGTERM)[moment % 2], dice.randint(1, lines)
        status, said = ran(at, number, words, count)
        told = judged(f"{words} at line {at} of {lines}", number, 0 if status == usual else status, said)
        assert unfinished(state, done=status == usual) == [], told
        note(told)
    call("rm", "-f", "m")
    assert leftovers.settle() == []


@pytest.mark.slow
def test_a_guest_that_does_not_go_keeps_nobody(fake_qemu: Path, leftovers: Leftovers) -> None:
    """Ctrl-C ends the wait for it at once, however long it was to be."""
    fake_qemu.write_text(fake_qemu.read_text().replace('"system_powerdown" | "quit"', '"quit"'))
    prepared("running")
    process = begin("stop", "m")
    time.sleep(12)  # QEMU and the agent have been asked
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=8)
    judged("stop", signal.SIGINT, process.returncode, said.decode())
    assert process.returncode == 130 and state_of("m") == "running"
    call("rm", "-f", "m")
    assert leftovers.settle() == []
