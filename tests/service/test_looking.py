"""How the service looks at machines for many at once: whom it waits for, what is old, what is not."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from tinamou.errors import StateError
from tinamou.monitor.states import UNKNOWN, State
from tinamou.service import lookout as looking
from tinamou.service.feed import Feed
from tinamou.service.lookout import Lookout
from tinamou.state.index import Look
from tinamou.state.record import Record
from tinamou.system.spawn import process_of


def running(name: str) -> Record:
    mine = {"pid": os.getpid(), "started": process_of(os.getpid()).started}
    return Record(name=name, directory="/nowhere", spec={}, image="tiny", arch="x86_64", created=1.0, **mine)


class Asked:
    """Machines whose QEMU say what ``says`` has, and only once their gate is open; who was asked how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.records = [running(name) for name in names]
        self.says = dict.fromkeys(names, "running")
        self.times = dict.fromkeys(names, 0)
        self.shut: dict[str, asyncio.Event] = {}
        self.begun = asyncio.Event()
        monkeypatch.setattr(looking, "look", lambda: Look({}, [], [], self.records))
        monkeypatch.setattr(looking, "reconcile", list)
        monkeypatch.setattr(looking, "state_of", self.state_of)

    async def state_of(self, record: Record) -> State:
        self.times[record.name] += 1
        self.begun.set()
        said = State(self.says[record.name])
        if record.name in self.shut:
            await self.shut[record.name].wait()
        return said


@pytest.fixture
def old(monkeypatch):
    """Whatever was seen or said is as old as the test says at once."""

    def make(**ages: float) -> None:
        for name, age in ages.items():
            monkeypatch.setattr(looking, name, age)

    return make


def states(seen: Any) -> dict[str, str]:
    return {row["name"]: row["state"] for row in seen.rows}


async def until(lookout: Lookout, **wanted: str) -> None:
    found: dict[str, str] = {}
    while found != wanted:
        found = states(await lookout.seen())
        await asyncio.sleep(0.01)


def whole(work: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(bounded())


def test_many_who_ask_at_once_have_one_look(state, monkeypatch):
    asked = Asked(monkeypatch, "a", "b")
    lookout = Lookout(Feed(state))

    async def work() -> list[Any]:
        return await asyncio.gather(*(lookout.seen() for _ in range(100)))

    found = whole(work)
    assert len({id(one) for one in found}) == 1 and asked.times == {"a": 1, "b": 1}


def test_what_was_done_with_one_machine_has_that_one_asked_alone(state, monkeypatch, old):
    asked = Asked(monkeypatch, "a", "b")
    lookout = Lookout(Feed(state))
    old(_ASKED=math.inf, _ASKED_FRESH=math.inf)

    async def work() -> Any:
        await lookout.seen()
        asked.says = {"a": "paused", "b": "paused"}
        lookout.changed("a")
        return await lookout.seen()

    assert states(whole(work)) == {"a": "paused", "b": "running"}
    assert asked.times == {"a": 2, "b": 1}


def test_a_look_that_began_before_a_change_is_not_what_is_told_after_it(state, monkeypatch):
    asked = Asked(monkeypatch, "a")
    lookout = Lookout(Feed(state))

    async def work() -> list[dict[str, str]]:
        asked.shut["a"] = asyncio.Event()
        before = asyncio.ensure_future(lookout.seen())
        await asked.begun.wait()
        gate = asked.shut.pop("a")
        asked.says["a"] = "paused"
        lookout.changed("a")
        after = states(await lookout.seen())
        gate.set()
        await before
        return [after, states(await lookout.seen())]

    assert whole(work) == [{"a": "paused"}, {"a": "paused"}]


def test_who_asks_again_and_again_does_not_wait_for_what_is_renewed_meanwhile(state, monkeypatch, old):
    asked = Asked(monkeypatch, "a")
    lookout = Lookout(Feed(state))
    old(_RENEWED=0.0, _FRESH=math.inf, _ASKED=0.0, _ASKED_FRESH=math.inf)

    async def work() -> list[dict[str, str]]:
        await lookout.seen()
        asked.says["a"] = "paused"
        asked.shut["a"] = asyncio.Event()
        found = [states(await lookout.seen()) for _ in range(3)]
        asked.shut.pop("a").set()
        await until(lookout, a="paused")
        return found

    assert whole(work) == [{"a": "running"}] * 3


def test_one_that_did_not_answer_is_asked_again_and_not_waited_for(state, monkeypatch, old):
    asked = Asked(monkeypatch, "hangs", "web")
    lookout = Lookout(Feed(state))
    old(_RENEWED=0.0, _FRESH=0.0, _ASKED=0.0, _ASKED_FRESH=0.0)
    asked.says["hangs"] = UNKNOWN

    async def work() -> dict[str, str]:
        await lookout.seen()
        asked.shut["hangs"] = asyncio.Event()
        asked.says["hangs"], asked.says["web"] = "running", "paused"
        found = states(await lookout.seen())
        asked.shut.pop("hangs").set()
        await until(lookout, hangs="running", web="paused")
        return found

    assert whole(work) == {"hangs": UNKNOWN, "web": "paused"}


def test_what_a_crash_left_is_put_right_before_the_first_look_and_beside_the_others(state, monkeypatch, old, caplog):
    Asked(monkeypatch, "a")
    lookout, done = Lookout(Feed(state)), list[str]()

    def tidied() -> list[str]:
        done.append("tidied")
        if len(done) > 1:
            raise StateError("a record is damaged")
        return ["a is gone"]

    monkeypatch.setattr(looking, "reconcile", tidied)
    lookout._feed.open()
    old(_TIDY_SECONDS=-1.0, _RENEWED=0.0, _FRESH=0.0)

    async def work() -> int:
        await lookout.seen()
        first = len(done)
        while len(done) < 4:
            await lookout.seen()
        return first

    assert whole(work) == 1
    assert [event["data"] for event in lookout._feed.since(0)[0] if event["kind"] == "tidied"] == [{"text": "a is gone"}]
    assert [one.getMessage() for one in caplog.records] == ["the machines could not be put in order: a record is damaged"]
