"""What a machine is, and what it is to be: who changes one changes the other as is due, and neither loses what it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou import late
from tinamou.machine.description import describe, describe_later, settled
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines
from tinamou.state.record import Record, change, create, read
from tinamou.system.spawn import process_of


@pytest.fixture
def off(state: Path) -> Record:
    with machines.making("web") as directory:
        return create(Record("web", str(directory), dump_spec(load_spec({"name": "web", "memory": "1G"}))))


@pytest.fixture
def running(off: Record) -> Record:
    """This process stands for its QEMU."""
    me = process_of(os.getpid())
    return change(off, pid=me.pid, started=me.started)


def memory(size: str):
    return lambda spec: late.replace(spec, memory=load_spec({"memory": size}).memory)


def cpus(count: int):
    return lambda spec: late.replace(spec, cpu=late.replace(spec.cpu, count=count))


def test_off_there_is_one(off: Record) -> None:
    now = describe_later(off, memory("2G"))
    assert (now.spec, now.later) == ({"name": "web", "memory": {"size": "2G"}}, {})
    assert settled(now) == now


def test_running_there_are_two(running: Record) -> None:
    now = describe_later(running, memory("2G"))
    assert (now.spec["memory"], now.later["memory"], now.next_spec) == ({"size": "1G"}, {"size": "2G"}, now.later)
    now = describe(running, cpus(3))
    assert [one["cpu"] for one in (now.spec, now.later)] == [{"count": 3}] * 2 and now.spec["memory"] == {"size": "1G"}
    now = describe(running, cpus(4), later=False)
    assert (now.spec["cpu"], now.later["cpu"]) == ({"count": 4}, {"count": 3})
    assert describe_later(running, lambda _: load_spec(now.spec)).later == {}, "nothing is to come any more"


def test_what_is_to_come_has_come_with_the_start(running: Record) -> None:
    describe_later(running, memory("2G"))
    off = change(running, pid=0, started=0)
    assert off.later and describe_later(off, cpus(2)).spec == {**off.later, "cpu": {"count": 2}}
    again = change(off, later={**off.spec, "cpu": {"count": 9}})
    assert settled(again).spec["cpu"] == {"count": 9} and settled(again).later == {}


def test_a_change_that_is_none_at_once_stays_to_come(running: Record) -> None:
    now = describe(running, cpus(2), later=False)
    assert (now.spec["cpu"], now.later) == ({"count": 2}, {"name": "web", "memory": {"size": "1G"}})


def test_nothing_is_written_of_what_is_no_description(running: Record) -> None:
    before = read(running.path)
    with pytest.raises(Exception, match="problem"):
        describe(running, lambda spec: late.replace(spec, name="No Name"))
    assert read(running.path) == before and isinstance(load_spec(running.spec), MachineSpec)
