"""What the watch says begins and ends, and that it sets no balloon on numbers from before the last change."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from running import run
from watch_cases import HOST, KILLED, MIB, OFF, memory, seen, size

from tinamou.control import Event
from tinamou.monitor.balance import Balance
from tinamou.monitor.ears import Ears
from tinamou.monitor.examine import examine_machine
from tinamou.monitor.stats import Reading, rates
from tinamou.monitor.watching import Looked, Watch
from tinamou.state.record import Record


def looked(*sights):
    return Looked({one.name: one for one in sights}, HOST, {one.name: examine_machine(one, HOST) for one in sights})


def told(watch, *sights):
    return [(one.event, one.machine, one.finding.check) for one in watch.changes(looked(*sights))]


FINE, FULL = seen(), seen(memory=memory(40))


def test_each_thing_is_said_once_when_it_begins_and_once_when_it_ends():
    watch = Watch()
    assert told(watch, FINE) == []
    assert told(watch, FULL) == [("begins", "web", "guest_memory")]
    assert told(watch, FULL) == told(watch, seen(memory=memory(39))) == []
    assert told(watch, FINE) == [("ends", "web", "guest_memory")]
    assert told(watch, FINE) == []


def test_what_gets_graver_is_said_again_and_what_gets_better_only_when_it_is_over():
    watch = Watch()
    assert told(watch, FULL) == [("begins", "web", "guest_memory")]
    assert told(watch, seen(memory=memory(5))) == [("begins", "web", "guest_memory")]
    assert told(watch, FULL) == []
    assert told(watch, FINE) == [("ends", "web", "guest_memory")]


def test_what_is_unknown_is_neither_begun_nor_over():
    watch = Watch()
    unknown = seen(memory=memory(None, why="the guest stands still"))
    assert told(watch, unknown) == []
    told(watch, FULL)
    assert told(watch, unknown) == []
    assert told(watch, FINE) == [("ends", "web", "guest_memory")]


def test_each_killed_process_is_said_though_the_last_one_still_is_wrong():
    watch = Watch()
    assert told(watch, seen(console=KILLED)) == [("begins", "web", "guest_oom")]
    assert told(watch, seen(console=KILLED, uptime=200.0)) == []
    assert told(watch, seen(console=KILLED + KILLED.replace("47.9", "99.9"))) == [("begins", "web", "guest_oom")]


def test_a_machine_that_is_gone_takes_what_was_wrong_with_it_along():
    watch = Watch()
    told(watch, FULL, replace(FULL, name="db"))
    assert told(watch, FULL) == [("ends", "db", "guest_memory")]
    assert told(watch) == [("ends", "web", "guest_memory")]


def test_a_machine_that_ends_and_is_still_looked_at_ends_what_was_wrong_inside():
    watch = Watch()
    told(watch, FULL)
    assert told(watch, replace(OFF, ended="the host was out of memory")) == [
        ("begins", "web", "qemu_killed"),
        ("ends", "web", "guest_memory"),
    ]


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, in the test's hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def decided(balance, **change):
    observation = seen(floor=size(192), **change)
    return balance.decide({"web": observation}, HOST)[0]


def test_nothing_is_taken_while_a_balloon_moves_or_on_numbers_from_before_that(clock):
    balance = Balance(300 * MIB)
    assert decided(balance).target == 448 * MIB
    clock[0] += 1.0
    moving = memory(380, holds=490)
    assert not decided(balance, memory=moving).changes
    clock[0] += 1.0
    there = memory(336, holds=448)
    assert not decided(balance, memory=there).changes, "it moved since the last look"
    clock[0] += 1.0
    assert not decided(balance, memory=replace(there, age=1.5)).changes, "its guest spoke before it came to rest"
    clock[0] += 1.0
    assert decided(balance, memory=replace(there, age=1.0)).target == 384 * MIB


def test_who_is_short_is_given_something_even_while_its_balloon_moves(clock):
    balance = Balance(300 * MIB)
    assert decided(balance).changes
    assert decided(balance, memory=memory(5, holds=470)).target > 470 * MIB


def test_a_guest_that_stands_still_keeps_what_it_holds():
    assert not decided(Balance(100 * MIB), state="paused").changes


def test_a_balloon_that_does_not_follow_is_told_the_same_once_a_minute(clock, tmp_path):
    balance, gone = Balance(300 * MIB), Record("web", str(tmp_path), {})
    applied = lambda: run(balance.apply([decided(balance)], {"web": gone}))  # noqa: E731
    (first,) = applied()
    assert "cannot be opened" in first.failed or "cannot be reached" in first.failed or "ended before" in first.failed
    clock[0] += 10.0
    assert applied() == []
    clock[0] += 60.0
    assert len(applied()) == 1


def test_a_request_the_machine_waits_for_has_not_failed():
    async def heard(action):
        ears = Ears()
        where = {"qom-path": "/machine/peripheral/disk0-dev/virtio-backend", "operation": "write", "reason": "no space"}
        ears.note("web", Event("BLOCK_IO_ERROR", {**where, "action": action}))
        assert ears.woken.is_set()
        return ears.failed("web"), ears.failed("db")

    assert run(heard("stop")) == ((), ())
    assert run(heard("report")) == (("write of disk0: no space",), ())


def reading(at, **change):
    usual = {"state": "running", "accel": "tcg", "vcpus": 1, "spent": None, "asked": None, "memory": None, "held": None}
    return Reading("web", at=at, **{**usual, **change})


def card(received):
    return {"network": ({"nic": "net0", "seen": "guest", "received": received, "sent": 0},)}


def test_rates_and_counters_that_begin_anew():
    assert rates(reading(10.0, **card(100)), reading(12.0, **card(300))).received == 100
    assert rates(reading(10.0, **card(300)), reading(12.0, **card(50))).received == 25
    assert rates(reading(10.0), reading(12.0, **card(50))).received is None
    both = (*card(7)["network"], {"nic": "net0", "seen": "host", "received": 9, "sent": 9})
    assert reading(0.0, network=both).carried("received") == 7
