"""A watch that looks again: whose turn it is, what one question is enough for, and when the monitor is given up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, cast

import pytest
from running import run
from watch_cases import HOST, KILLED, MIB, PANIC, SEEN, memory, size

from tinamou.control import Session
from tinamou.control.monitors import owners_turn
from tinamou.errors import ControlError
from tinamou.monitor.again import Sight, look_again, rooms
from tinamou.monitor.ears import Ears
from tinamou.monitor.examine import examine_machine
from tinamou.monitor.pace import LONGEST, Pace
from tinamou.state.record import Record
from tinamou.system.openings import Openings


class Says:
    """A session whose QEMU says one thing of the guest's memory, and what it was asked."""

    def __init__(self, available: int = 300, age: int = 0, error: ControlError | None = None) -> None:
        self.asked: list[str] = []
        self._stats = {"stats": {"stat-available-memory": available * MIB}, "last-update": int(time.time()) - age}
        self._error = error

    async def execute(self, command: str, arguments: Any = None, **more: object) -> object:
        self.asked.append(f"{command} {(arguments or more).get('property')}")
        if self._error:
            raise self._error
        return self._stats


@pytest.fixture
def web(tmp_path):
    (tmp_path / "serial.log").write_text("boots\n")
    return Record("web", str(tmp_path), {})


def sight(record, seen=SEEN, **change):
    now = time.monotonic()
    kept = Sight(record, seen, now - 10, now - 10, 0, 6, examine_machine(seen, HOST))
    return replace(kept, **change)


def again(before, record, says, told=0, places=None):
    return run(look_again(before, record, cast("Session | None", says), told, places or {}, 2))


def test_one_question_tells_of_a_guest_that_was_well(web):
    says, before = Says(), sight(web)
    now = again(before, web, says)
    assert says.asked == ["qom-get guest-stats"]
    assert now.seen.memory.available == size(300)
    assert now.seen.memory.holds == before.seen.memory.holds
    assert 9.9 < now.seen.uptime - before.seen.uptime < 11
    assert now.at - before.at > 9.9
    assert (now.full, now.seen.console) == (before.full, before.seen.console)


def test_what_may_have_changed_is_looked_at_in_full(web):
    cases = {
        "nobody listens": again(sight(web), web, None),
        "an event": again(sight(web), web, Says(), told=1),
        "another record": again(sight(web), replace(web), Says()),
        "long ago": again(sight(web, full=time.monotonic() - 61), web, Says()),
        "paused": again(sight(web, replace(SEEN, state="paused")), web, Says()),
        "agent is silent": again(sight(web, replace(SEEN, answers=False), findings=()), web, Says()),
        "killed before": again(sight(web, replace(SEEN, console=KILLED)), web, Says()),
        "memory is short": again(sight(web, replace(SEEN, memory=memory(20))), web, Says()),
        "memory was not told": again(sight(web, replace(SEEN, memory=memory(None, why="no driver"))), web, Says()),
        "the guest is late": again(sight(web), web, Says(age=4)),
        "QEMU refuses": again(sight(web), web, Says(error=ControlError("no"))),
    }
    assert [why for why, found in cases.items() if found is not None] == []


def test_a_console_that_grew_is_read_and_a_file_system_seen_as_it_is_now(web):
    before = sight(web)
    web.file("serial.log").write_text("boots\n" + PANIC)
    place = before.seen.disks[0].place
    full = replace(place, free=size(1))
    now = again(before, web, Says(), places={place.path: full})
    assert "sysrq triggered crash" in now.seen.console
    assert now.seen.disks[0].place == full
    assert now.length == len("boots\n" + PANIC)
    assert [one.check for one in examine_machine(now.seen, HOST) if str(one.severity) == "bad"] == [
        "guest_panic",
        "disk_space",
    ]
    assert again(sight(web, length=now.length), web, Says()).seen.disks[0].place is None


def test_rooms_are_those_around_the_disks(web, tmp_path):
    disk = replace(SEEN.disks[0], place=replace(SEEN.disks[0].place, path=str(tmp_path)))
    (found,) = rooms([sight(web, replace(SEEN, disks=(disk,))), sight(web, replace(SEEN, disks=()))]).values()
    assert found is not None
    assert (found.path, found.device) == (str(tmp_path), tmp_path.stat().st_dev)


NAMES = [f"m{number}" for number in range(500)]


def test_few_machines_are_all_looked_at_each_time():
    pace = Pace()
    for now in (1000.0, 1000.3, 1010.0):
        assert pace.due(NAMES[:16], now) == NAMES[:16]
        pace.took(NAMES[:16], now, 5.0)


def test_of_many_so_many_are_looked_at_as_their_cost_permits_and_each_in_its_turn():
    pace, seen = Pace(), []
    assert pace.due(NAMES, 1000.0) == NAMES
    pace.took(NAMES, 1000.0, 500 * 0.001)
    for step in range(1, 10):
        due = pace.due(NAMES, 1000.0 + 10 * step)
        assert len(due) == 60
        pace.took(due, 1000.0 + 10 * step, 60 * 0.001)
        seen += due
    assert seen[:500] == NAMES


def test_each_is_looked_at_in_time_whatever_it_costs():
    pace = Pace()
    pace.due(NAMES, 1000.0)
    pace.took(NAMES, 1000.0, 500.0)
    due = pace.due(NAMES, 1010.0)
    assert len(due) == -(-500 * 10 // int(LONGEST))
    assert pace.due(NAMES[:20], 1010.5) == NAMES[:16]
    pace.took(NAMES[:16], 1010.5, 1.0)
    assert pace.due(NAMES[:20], 1011.0)[:4] == NAMES[16:20]


def test_who_opens_a_file_is_heard_and_not_after_it_is_forgotten(tmp_path):
    first, second, heard = tmp_path / "a", tmp_path / "b", []
    for path in (first, second):
        path.write_text("x")
    openings = Openings()
    try:
        openings.hear()
        number = openings.listen(str(first), lambda: heard.append("a"))
        openings.listen(str(second), lambda: heard.append("b"))
        second.read_text()
        first.read_text()
        openings.hear()
        assert heard == ["b", "a"]
        openings.forget(number)
        openings.forget(number)
        first.read_text()
        second.read_text()
        openings.hear()
        assert heard == ["b", "a", "b"]
        with pytest.raises(FileNotFoundError):
            openings.listen(str(tmp_path / "c"), list)
    finally:
        openings.close()


@pytest.mark.parametrize("kernel", [True, False])
def test_the_monitor_is_wanted_by_who_waits_for_it_now_or_before(web, monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr("tinamou.monitor.ears.Openings", _none)

    async def work(before: bool) -> bool:
        ears, turn = Ears(), owners_turn(web.directory)
        if before:
            turn.wait()
        wanted = asyncio.ensure_future(ears._wanted(owners_turn(web.directory)))
        await asyncio.sleep(0.05)
        early = wanted.done()
        if not before:
            turn.wait()
        await asyncio.wait_for(wanted, 60)
        turn.stop_waiting()
        await ears.close()
        return early

    assert run(work(before=True))
    assert not run(work(before=False))


def _none() -> Openings:
    raise OSError(24, "no more of it")
