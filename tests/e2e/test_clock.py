"""A guest's clock is right, within a second, after whatever its machine stood still for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from typed import call, tinamou

from tinamou import Machine, late
from tinamou.guest.clock import set_clock
from tinamou.system.loop_thread import wait_for

pytestmark = pytest.mark.vm

STILL = 3.0
"""Seconds a machine stands still: what its clock would be behind by."""

LOOK = "touch /tmp/now; stat -c '%Y %y' /tmp/now"
"""What a guest takes the time to be; the date(1) of some knows whole seconds alone."""


def off(machine: Machine | str, apart: float = 0.0) -> float:
    """Seconds the guest's clock is before (less than 0) or behind the time in which it was asked, and so much ``apart``."""
    before = time.time()
    said = tinamou("exec", machine, "--", "sh", "-c", LOOK) if isinstance(machine, str) else machine.run(LOOK).text
    seconds, _, _, part, *_ = said.replace(".", " ").split()
    told = float(f"{seconds}.{part}") - apart
    return min(told - before, 0.0) or max(told - time.time(), 0.0)


@pytest.fixture
def kept() -> Iterator[str]:
    """A machine nobody attends."""
    tinamou("run", "-d", "--name", "kept", "--net", "none")
    yield "kept"
    call("rm", "-f", "kept")


def test_after_a_pause() -> None:
    with Machine(net=[]) as machine:
        machine.run("date -u -s '2001-02-03 04:05:06'")
        assert off(machine) < -1e8
        machine.pause()
        set_by = machine.resume()
        assert (set_by.by, set_by.note) == ("resident", ""), set_by
        assert abs(off(machine)) < 1
        machine.pause()
        time.sleep(STILL)
        said = json.loads(tinamou("resume", machine.name, "--json"))  # by the line that this process holds
        assert (said["by"], said["note"]) == ("resident", "")
        assert abs(off(machine)) < 1
        machine.run("date -u -s '2001-02-03 04:05:06'")
        by_agent = wait_for(set_clock(late.replace(machine.record, resident=False)))
        assert (by_agent.by, by_agent.note) == ("agent", ""), by_agent
        assert abs(off(machine)) < 1


def test_one_that_is_set_apart_stays_apart() -> None:
    behind = -86400
    with Machine(net=[], clock={"offset": behind}) as machine:
        for resident in (True, False):
            machine.run("date -u -s '2001-02-03 04:05:06'")
            machine.pause()
            machine.resume()
            set_by = wait_for(set_clock(late.replace(machine.record, resident=resident)))
            assert (set_by.by, set_by.note) == ("resident" if resident else "agent", ""), set_by
            assert abs(off(machine, behind)) < 2
        with machine.fork() as fork:
            assert abs(off(fork, behind)) < 2
        assert abs(off(machine, behind)) < 2
    with Machine(net=[], clock={"base": "2020-01-01T00:00:00"}) as machine:
        machine.pause()
        assert "by clock.base" in machine.resume().note
        assert machine.run("date -u +%Y").text.strip() == "2020"


@pytest.mark.slow
@pytest.mark.usefixtures("every_qemu")
def test_after_each_way_of_standing_still(kept: str) -> None:
    ways = [("pause", "resume"), ("suspend", "resume")]
    for still, again in ways:
        tinamou(still, kept)
        time.sleep(STILL)
        said = json.loads(tinamou(again, kept, "--json"))
        assert (said["by"], said["note"]) == ("resident", ""), (still, said)
        assert abs(off(kept)) < 1, still
    tinamou("checkpoint", kept, "saved")
    time.sleep(STILL)
    assert abs(off(kept)) < 1
    for words in (("fork", "saved"), ("checkpoints", "restore", "saved", "--name", "again"), ("fork", kept)):
        said = json.loads(tinamou(*words, "--json"))
        assert said["notes"] == []
        name = said["name"] if "name" in said else said["forks"][0]
        assert abs(off(name)) < 1, words
        assert abs(off(kept)) < 1
        tinamou("rm", "-f", name)
        if said["checkpoint"] != "saved":
            tinamou("checkpoints", "rm", said["checkpoint"])
    tinamou("checkpoints", "rm", "saved")
    [said] = json.loads(tinamou("upgrade", kept, "--json"))
    assert said["note"] == ""
    assert abs(off(kept)) < 1


@pytest.mark.slow
@pytest.mark.usefixtures("every_qemu")
def test_after_many_moments_of_a_forkable_machine() -> None:
    with Machine(net=[], forkable=True) as machine:
        for _ in range(10):
            machine.fork().kill()
        assert abs(off(machine)) < 0.5
        machine.run("date -u -s '2001-02-03 04:05:06'")
        with machine.fork() as fork:
            assert abs(off(fork)) < 1 and abs(off(machine)) < 1
        for _ in range(3):
            machine.run("date -u -s '2001-02-03 04:05:06'")
            assert machine.upgrade().note == ""
            assert abs(off(machine)) < 1
