"""Pools, warm starts and the verbs around checkpoints, with real guests."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import memory_exists, memory_of
from typed import call, eventually, tinamou

from tinamou import Machine, Pool
from tinamou.errors import StateError
from tinamou.machine.checkpoints import every
from tinamou.snapshots.resting import discard
from tinamou.system.spawn import Process, alive

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def no_checkpoints_left() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def test_a_pool_hands_out_machines_nobody_else_has() -> None:
    with Pool(size=2) as pool:
        assert pool.waiting == 2
        taken = [pool.take() for _ in range(4)]
        names = [one.run("hostname").text for one in taken]
        assert names == [one.name for one in taken]
        assert len({one.run("cat /etc/machine-id; head -c 32 /dev/urandom | base64").text for one in taken}) == 4
        taken[0].kill()
        with taken[1] as one:
            assert one.run("echo on").text == "on"
    with pytest.raises(StateError, match="not open"):
        pool.take()
    assert [one.run("echo on").text for one in taken[2:]] == ["on", "on"]
    for one in taken[2:]:
        one.kill()


def test_a_bounded_pool_stays_below_its_bound() -> None:
    with Pool(size=3, bound="1M") as pool:
        pool.take().kill()
        assert pool.waiting <= 3


def test_warm_machines_are_forks_of_one_that_is_made_again_when_damaged() -> None:
    with Machine(warm=True) as first:
        assert first.run("hostname").text == first.name
    [made] = every()
    with Machine(warm=True, name="second") as second:
        assert (second.name, second.record.parent) == ("second", made.name)
    assert made.ram
    os.kill(made.ram.pid, signal.SIGKILL)
    while alive(Process(made.ram.pid, made.ram.started)):
        time.sleep(0.01)
    with Machine(warm=True) as third:
        assert third.run("echo on").text == "on"
    [again] = every()
    assert (again.name, again.created > made.created) == (made.name, True)


def test_the_verbs() -> None:
    tinamou("run", "-d", "--name", "src", "--set", "memory.forkable=true")
    assert tinamou("checkpoint", "src", "one") == "one\n"
    forks = tinamou("fork", "one", "-n", "2").split()
    assert [tinamou("exec", name, "--", "hostname").strip() for name in forks] == forks
    [row] = json.loads(tinamou("checkpoints", "ls", "--json"))
    assert (row["name"], row["kind"], row["forks"]) == ("one", "instant", 2)
    lines = tinamou("checkpoints", "tree").splitlines()
    assert lines[:2] == ["src running", "  @one instant"]
    assert sorted(lines[2:]) == [f"    {name} running" for name in sorted(forks)]
    refused = call("checkpoints", "rm", "one")
    assert refused.returncode == 118
    assert forks[0] in refused.stderr
    tinamou("rm", "-f", "src")
    tinamou("checkpoints", "restore", "one")
    assert tinamou("exec", "src", "--", "hostname") == "src\n"
    tinamou("checkpoints", "restore", "one", status=118)
    memory = memory_of("one")
    tinamou("checkpoints", "rm", "-f", "one")
    assert json.loads(tinamou("ls", "--json")) == []
    eventually(lambda: not memory_exists(memory), "the end of its memory")


def test_run_warm() -> None:
    assert tinamou("run", "--warm", "--", "uname", "-m") == "x86_64\n"
    assert tinamou("run", "--warm", "--", "sh", "-c", "exit 7", status=7) == ""
