"""A move cut short between the last byte and the decision: whose the machine is when one of the hosts is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from two_hosts import Two, started
from typed import call, tinamou

from tinamou.errors import StateError
from tinamou.fleet import hosts
from tinamou.machine import arriving
from tinamou.machine.reconcile import claim
from tinamou.state import machines, moves
from tinamou.state.record import Record, create

DYING = Path(__file__).with_name("dying.py")


def made(name: str, generation: int = 0) -> Record:
    """A machine at rest, of one moment."""
    folder = machines.machines_dir() / name
    folder.mkdir(parents=True)
    return create(Record(name, str(folder), {"name": name}, created=7.0, generation=generation))


@pytest.mark.usefixtures("state")
def test_a_source_is_in_doubt_once_its_memory_went_and_is_not_started() -> None:
    record = moves.begin_leaving(made("web"), "there", "t")
    assert not moves.doubtful(moves.stay(record, "t"))
    record = moves.stay(moves.sending(moves.begin_leaving(record, "there", "u"), "u"), "u")
    assert moves.doubtful(record)
    with pytest.raises(StateError, match="may have been taken over by there"):
        claim(record)
    assert moves.sure(record, "u").move == {}
    record = moves.stay(moves.sending(moves.begin_leaving(record, "there", "v"), "v"), "v")
    assert moves.phase(moves.lost(record, "v")) == moves.LEFT


@pytest.mark.usefixtures("state")
def test_what_came_is_dropped_unless_it_was_taken_over() -> None:
    assert arriving.drop(7.0, 0, "t") == ""
    record = made("web", generation=1)
    ready = create(Record(**{**vars(record), "move": {**moves.arriving("h1", "t"), "phase": moves.READY}}))
    assert arriving.drop(7.0, 1, "t") == ""
    assert ready.path.exists()
    assert arriving.drop(7.0, 0, "t") == ""
    assert not ready.path.exists()
    taken = create(Record(**{**vars(made("db", generation=1)), "move": {"phase": "", "host": "h1", "token": "t"}}))
    assert arriving.drop(7.0, 0, "t") == os.uname().nodename
    gone = moves.leave(moves.begin_leaving(taken, "h3", "w"), "w")
    assert arriving.drop(7.0, 0, "t") == "h3"
    assert gone.path.exists()


def undecided(two: Two) -> list[int]:
    """A machine whose mover died before the decision: ready there, and whose QEMU here is killed."""
    before = started(two)
    words = [sys.executable, str(DYING), "leave", "before", "move", "web", "there"]
    assert subprocess.run(words, capture_output=True, timeout=300, check=False).returncode == -signal.SIGKILL
    here = two.here()
    assert here is not None
    os.kill(here.pid, signal.SIGKILL)
    return before


@pytest.mark.vm
@pytest.mark.slow
def test_a_host_that_is_lost_finds_that_its_machine_was_taken_over(two: Two) -> None:
    before = undecided(two)
    known = hosts.find("there")
    refused = call("settle", "web", **two.places)
    assert refused.returncode == 118
    assert "no host is known as" in refused.stderr
    assert "is lost" in refused.stderr
    assert "tinamou settle web" in call("start", "web", **two.places).stderr
    assert "is lost" in call("settle", "web", "--other-is-off", **two.places).stderr
    two.goes_on(before, away=True)
    assert "may be ready on there" in call("ls").stderr
    hosts.remove("there")
    assert "may have been taken over" in call("start", "web").stderr
    assert "does not say" in call("settle", "web").stderr
    hosts.add(known)
    assert "web is on there" in call("settle", "web").stderr
    here = two.here()
    assert here is not None
    assert (moves.phase(here), here.running) == (moves.LEFT, False)
    assert "has moved to there" in call("start", "web").stderr
    two.goes_on(before, away=True)


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.usefixtures("back")
def test_a_source_that_answers_keeps_it(two: Two) -> None:
    before = undecided(two)
    tinamou("ls")
    assert "was removed" in call("settle", "web", "--ask", "back", **two.places).stderr
    assert two.away() is None
    assert "may have been taken over" in call("start", "web").stderr
    assert "web is here, and off" in call("settle", "web").stderr
    tinamou("start", "web")
    disk = int(tinamou("exec", "web", "--", "sh", "-c", "dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -1"))
    assert disk >= before[1]
    assert "nothing to settle" in call("settle", "web").stderr
