"""Every verb, interrupted at random moments: it says so in a line, ends with the right status, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from interrupting import judged, note, state_of, unfinished
from leftovers import Leftovers
from typed import begin, call, tinamou

pytestmark = pytest.mark.vm

MOMENTS = int(os.environ.get("TINAMOU_MOMENTS", "2"))
SEED = os.environ.get("TINAMOU_SEED", "")  # other moments than those of every run


@dataclass(frozen=True)
class Verb:
    """A line, and what has to be so before it: the machine ``m`` ``running`` or not, and its kind of memory."""

    words: tuple[str, ...]
    running: bool | None = True
    seconds: float = 1.5
    after: Callable[[], object] = lambda: None


def forget(kind: str) -> Callable[[], object]:
    """Removes checkpoints, pools machines or requests that a round may have made."""

    def checkpoints() -> None:
        for row in json.loads(tinamou("checkpoints", "ls", "--json")):
            call("checkpoints", "rm", "-f", row["name"])

    def pools() -> None:
        for row in json.loads(tinamou("pool", "ls", "--json")):
            call("pool", "rm", row["name"])

    def machine() -> None:
        call("rm", "-f", "other")

    def guest() -> None:
        call("kill", "m")  # asked to stop, it would do so in the middle of the next round

    return {"checkpoints": checkpoints, "pools": pools, "machine": machine, "guest": guest}[kind]


VERBS = [
    Verb(("run", "--", "true"), running=None, seconds=3.0),
    Verb(("run", "--", "sleep", "100"), running=None, seconds=4.0),
    Verb(("run", "--warm", "--", "sleep", "100"), running=None, seconds=2.0),
    Verb(("run", "-d", "--name", "other"), running=None, seconds=3.0, after=forget("machine")),
    Verb(("start", "m"), running=False, seconds=3.0),
    Verb(("restart", "m"), seconds=4.0, after=forget("guest")),
    Verb(("stop", "m"), seconds=1.5, after=forget("guest")),
    Verb(("suspend", "m"), seconds=2.0),
    Verb(("exec", "m", "--", "sleep", "100"), seconds=1.5),
    Verb(("cp", "/usr/bin/python3", "m:/tmp/x"), seconds=2.0),
    Verb(("checkpoint", "m"), seconds=2.0, after=forget("checkpoints")),
    Verb(("fork", "m", "-n", "2"), seconds=4.0, after=forget("checkpoints")),
    Verb(("snapshot", "create", "m"), seconds=1.0),
    Verb(("snapshot", "create", "m"), running=False, seconds=1.0),
    Verb(("disk", "add", "m", "size=8M"), seconds=1.0),
    Verb(("net", "add", "m", "passt"), seconds=1.0),
    Verb(("check", "m"), running=False, seconds=1.0),
    Verb(("backup", "create", "m", "BACKUP"), seconds=2.0),
    Verb(("pool", "create", "web", "--size", "2"), running=None, seconds=4.0, after=forget("pools")),
    Verb(("ls",), seconds=0.5),
]


def prepared(running: bool | None) -> None:
    """The machine ``m`` as a verb needs it, whatever the round before made of it."""
    if running is None:
        return
    now = state_of("m")
    if now == "gone":
        tinamou("run", "-d", "--name", "m", "--disk", "size=8M", "--net", "none", "--set", "memory.size=192M")
        now = "running"
    if now == "suspended":
        tinamou("kill", "m")
        now = "stopped"
    if running and now == "stopped":
        tinamou("start", "m")
    elif not running and now != "stopped":
        tinamou("kill", "m")


def heeds(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command has come so far that it heeds requests to end."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
    return bool(caught >> (signal.SIGHUP - 1) & 1) or process.poll() is not None


def interrupted(verb: Verb, number: signal.Signals, after: float, folder: Path) -> str:
    """One round: what the command says and how it ends; which that was, in a sentence."""
    process = begin(*(str(folder / "backup") if word == "BACKUP" else word for word in verb.words))
    while not heeds(process):
        time.sleep(0.002)
    time.sleep(after)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # with PYTHONFAULTHANDLER=1 it says where it is
        pytest.fail(
            f"{' '.join(verb.words)} goes on after {number.name} at {after:.2f} s: {process.communicate()[1].decode()}"
        )
    finally:
        process.kill()
    return judged(f"{' '.join(verb.words)} after {after:.2f} s", number, process.returncode, said.decode())


def label(verb: Verb) -> str:
    return " ".join(verb.words[:2]) + (" of one that is off" if verb.running is False else "")


@pytest.mark.parametrize("verb", VERBS, ids=label)
@pytest.mark.timeout(120 + 20 * MOMENTS)
def test_at_random_moments(verb: Verb, state: Path, tmp_path: Path, leftovers: Leftovers) -> None:
    dice = random.Random(f"{verb.words}{verb.running}{SEED}")
    for moment in range(MOMENTS):
        prepared(verb.running)
        number = (signal.SIGINT, signal.SIGTERM)[moment % 2]
        said = interrupted(verb, number, dice.uniform(0.0, verb.seconds), tmp_path)
        assert unfinished(state, done=said.endswith(" 0")) == [], said
        note(said)
        verb.after()
    for row in json.loads(tinamou("ls", "--json")):
        tinamou("rm", "-f", row["name"])
    forget("checkpoints")()
    assert leftovers.found() == []
