"""Every verb, interrupted at random moments: it says so in a line, ends with the right status, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from interrupting import heeds, judged, note, state_of, unfinished
from leftovers import Leftovers
from sshd_here import sshd
from typed import begin, call, eventually, tinamou

from tinamou.fleet import hosts

pytestmark = pytest.mark.vm

MOMENTS = int(os.environ.get("TINAMOU_MOMENTS", "2"))
SEED = os.environ.get("TINAMOU_SEED", "")  # other moments than those of every run


@dataclass(frozen=True)
class Verb:
    """A line, what has to be so before it, and what undoes it; the machine ``m`` is ``running``, ``stopped``, ``suspended``
    or not asked for.

    ``seconds`` is for how long it goes on here, which is found out by doing it where there are many moments and it
    ``ends`` by itself. A ``forkable`` machine takes no disks or cards later.
    """

    words: tuple[str, ...]
    wanted: str = "running"
    seconds: float = 1.5
    ends: bool = True
    forkable: bool = False
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

    def m() -> None:
        call("rm", "-f", "m")  # what was plugged in would take up all slots

    def guest() -> None:
        call("kill", "m")  # asked to stop, it would do so in the middle of the next round

    return {"checkpoints": checkpoints, "pools": pools, "machine": machine, "guest": guest, "m": m}[kind]


GONE, ANEW = forget("machine"), forget("m")
VERBS = [
    Verb(("run", "--", "true"), "", 3.0),
    Verb(("run", "--", "sleep", "100"), "", 4.0, ends=False),
    Verb(("run", "--warm", "--", "sleep", "100"), "", 2.0, ends=False),
    Verb(("run", "-d", "--name", "other"), "", 3.0, after=GONE),
    Verb(("start", "m"), "stopped", 3.0),
    Verb(("restart", "m"), seconds=4.0, after=forget("guest")),
    Verb(("stop", "m"), after=forget("guest")),
    Verb(("suspend", "m"), seconds=2.0),
    Verb(("resume", "m"), "suspended", 2.0),
    Verb(("upgrade", "m"), seconds=2.0, forkable=True),
    Verb(("move", "m", "there"), seconds=5.0, after=lambda: call("rm", "-f", "m", **THERE)),
    Verb(("exec", "m", "--", "sleep", "100"), ends=False),
    Verb(("cp", "/usr/bin/python3", "m:/tmp/x"), seconds=2.0),
    Verb(("checkpoint", "m"), seconds=2.0, after=forget("checkpoints")),
    Verb(("checkpoints", "restore", "kept", "--name", "other"), "kept", 2.0, after=GONE),
    Verb(("fork", "m", "-n", "2"), seconds=4.0, forkable=True, after=forget("checkpoints")),
    Verb(("snapshot", "create", "m"), seconds=1.0),
    Verb(("snapshot", "create", "m"), "stopped", 1.0),
    Verb(("disk", "add", "m", "size=8M"), seconds=1.0, after=ANEW),
    Verb(("net", "add", "m", "passt"), seconds=1.0, after=ANEW),
    Verb(("check", "m"), "stopped", 1.0),
    Verb(("backup", "create", "m", "BACKUP"), seconds=2.0),
    Verb(("pool", "create", "web", "--size", "2"), "", 4.0, after=forget("pools")),
    Verb(("ls",), "", 0.5),
]
SLOW = ("resume", "upgrade", "move", "checkpoints")
MANY = 10
DESCRIPTION = ("--disk", "size=8M", "--net", "none", "--set", "memory.size=192M")
FORKABLE = ("--set", "memory.forkable=true")
THERE: dict[str, str] = {}
"""The variables of the other host that machines are moved to."""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[None]:
    """A host ``there``: this one, by a real ssh, with another state directory."""
    folder = Path(tempfile.mkdtemp(prefix="tn-", dir="/tmp"))
    folder.chmod(0o755)
    left = Leftovers(folder)
    THERE.update(TINAMOU_STATE=str(folder), TINAMOU_RUN=str(folder))
    try:
        with sshd(tmp_path / "sshd") as server:
            hosts.add(server.host("there", state=folder))
            yield
        assert left.settle() == []
    finally:
        left.clear()
        shutil.rmtree(folder)


def prepared(verb: Verb, wanted: str = "") -> None:
    """The machine ``m`` as a verb needs it, whatever the round before made of it."""
    wanted = wanted or verb.wanted
    if wanted == "kept":
        if not json.loads(tinamou("checkpoints", "ls", "--json")):
            prepared(verb, "running")
            tinamou("checkpoint", "m", "kept", "--kind", "portable")
        return
    while wanted and (now := state_of("m")) != wanted:
        if now in ("gone", "moved"):
            call("rm", "-f", "m")
            tinamou("run", "-d", "--name", "m", *DESCRIPTION, *(FORKABLE if verb.forkable else ()))
        elif now == "suspended" or wanted == "stopped":
            tinamou("kill", "m")
        else:
            tinamou("start" if now == "stopped" else "suspend", "m")


def heeding(words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """The command, once it heeds requests to end."""
    process = begin(*words)
    eventually(lambda: heeds(process.pid) or process.poll() is not None, f"{words[0]} heeds requests to end")
    return process


def lasts(verb: Verb, words: tuple[str, ...]) -> float:
    """For how many seconds it goes on that is done whole."""
    if not verb.ends or MOMENTS < MANY:
        return verb.seconds
    prepared(verb)
    process, began = heeding(words), time.monotonic()
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, said
    verb.after()
    return time.monotonic() - began


def interrupted(words: tuple[str, ...], number: signal.Signals, after: float) -> str:
    """One round: what the command says and how it ends; which that was, in a sentence."""
    process = heeding(words)
    time.sleep(after)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # with PYTHONFAULTHANDLER=1 it says where it is
        pytest.fail(f"{' '.join(words)} goes on after {number.name} at {after:.2f} s: {process.communicate()[1].decode()}")
    finally:
        process.kill()
    return judged(f"{' '.join(words)} after {after:.2f} s", number, process.returncode, said.decode())


def label(verb: Verb) -> str:
    return " ".join(verb.words[:2]) + (" of one that is off" if verb.wanted == "stopped" else "")


@pytest.mark.parametrize(
    "verb", [pytest.param(one, marks=[pytest.mark.slow] if one.words[0] in SLOW else [], id=label(one)) for one in VERBS]
)
@pytest.mark.timeout(600 + 60 * MOMENTS)
def test_at_random_moments(
    verb: Verb, state: Path, tmp_path: Path, leftovers: Leftovers, request: pytest.FixtureRequest
) -> None:
    if verb.words[0] == "move":
        request.getfixturevalue("there")
    dice = random.Random(f"{verb.words}{verb.wanted}{SEED}")
    words = tuple(str(tmp_path / "backup") if word == "BACKUP" else word for word in verb.words)
    seconds = lasts(verb, words)
    for moment in range(MOMENTS):
        prepared(verb)
        number = (signal.SIGINT, signal.SIGTERM)[moment % 2]
        said = interrupted(words, number, dice.uniform(0.0, seconds))
        assert unfinished(state, done=said.endswith(" 0")) == [], said
        note(said)
        assert wholly(verb), said
        verb.after()
    for row in json.loads(tinamou("ls", "--json")):
        tinamou("rm", "-f", row["name"])
    forget("checkpoints")()
    assert leftovers.settle() == []


def wholly(verb: Verb) -> bool:
    """Whether its machine is one that runs, is off, suspended or not there: no state between."""
    return not verb.wanted or state_of("m") in ("running", "stopped", "suspended", "gone", "moved")
