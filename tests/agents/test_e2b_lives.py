"""Lives and deadlines of sandboxes, without machines: what is told of their states is made up."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from tinamou import late
from tinamou.service.agents.e2b import making, sandboxes
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.e2b.sandboxes import Sandboxes

LONG = 1e12


def entry(key, **more):
    return Entry(**{"id": key, "machine": key, "owner": "token:x", "template": "base", "token": "s", "started": 0.0,
                    "deadline": LONG, "ready": True, **more})  # fmt: skip


@pytest.fixture
def states(monkeypatch):
    """States by ids, which suspending and resuming change; others are gone."""
    told: dict[str, str] = {}

    async def suspend(name):
        told[name] = "paused"

    async def resume(name):
        told[name] = "running"

    monkeypatch.setattr(Sandboxes, "state", lambda _, one: told.get(one.id, "gone"))
    monkeypatch.setattr(sandboxes.lives, "suspend", suspend)
    monkeypatch.setattr(sandboxes.lives, "resume", resume)
    return told


def within(*entries, most=9):
    """Run a coroutine function with sandboxes that are there."""

    def run(what):
        async def go():
            async with Sandboxes({}, most=most) as every:
                for one in entries:
                    every.entries.put(one)
                await asyncio.wait_for(what(every), 60)

        asyncio.run(go())

    return run


async def until(holds):
    while not holds():  # noqa: ASYNC110 (what it waits for has no event)
        await asyncio.sleep(0)


def test_those_whose_machine_is_gone_hold_no_place(states):
    states["sb3"] = "running"

    @within(entry("sb1"), entry("sb2", request="again"), entry("sb3", request="again"), most=3)
    async def _(every):
        assert every.made_by("token:x", "again").id == "sb3"
        with pytest.raises(RefusedError):
            every.find("sb1", "token:x")
        await every.kill(every.find("sb1", "token:x", gone=True))
        assert every.entries.get("sb1") is None
        await every._make_room(2)
        assert [one.id for one in every.entries] == ["sb3"]
        every.entries.put(entry("sb4"))
        every._swept = 0.0
        every._changed.set()
        await until(lambda: every.entries.get("sb4") is None)
        every.entries.put(entry("sb5"))

    @within()
    async def _(every):
        assert [one.id for one in every.entries] == ["sb3"]


def test_a_sandbox_that_runs_has_a_deadline(states):
    states["sb1"] = "running"

    @within(entry("sb1", deadline=LONG))
    async def _(every):
        before = every.entries.get("sb1")
        async with every.turn(before):
            connecting = asyncio.create_task(every.connect(before, 100))
            await asyncio.sleep(0)
            await every._pause(before)
        assert (await connecting)[0].deadline > time.time(), "what was read before the turn has the deadline of before"
        every.entries.put(late.replace(before, deadline=0.0))
        every._swept = 0.0
        every._changed.set()
        await until(lambda: every.entries.get("sb1").deadline)


def test_more_time_while_its_end_waits_for_its_turn(states):
    states["sb1"] = "running"

    @within(entry("sb1"))
    async def _(every):
        async with every.turn(every.entries.get("sb1")) as now:
            every.entries.put(late.replace(now, deadline=1.0))
            every._changed.set()
            await until(lambda: "sb1" in every._ending)
            every.until(now, 100)
        await until(lambda: "sb1" not in every._ending)
        assert every.entries.get("sb1").deadline > time.time()
        every._going.add("sb1")
        with pytest.raises(RefusedError, match="being paused or ended"):
            every.until(now, 200)
        every.entries.drop("sb1")
        with pytest.raises(RefusedError, match="not found"):
            every.until(now, 200)


def test_one_that_is_slow_or_fails_holds_up_no_other(states, monkeypatch):
    states |= dict.fromkeys(("sb1", "sb2", "sb3", "sb4"), "running")
    slow = asyncio.Event()

    async def removed(self, one):
        if one.id == "sb1":
            await slow.wait()
        if one.id == "sb2":
            raise ValueError("no room")
        self.entries.drop(one.id)

    monkeypatch.setattr(Sandboxes, "_remove", removed)

    @within(entry("sb1"), entry("sb2"), entry("sb3"), entry("sb4"))
    async def _(every):
        def full(*_):
            raise OSError(28, "No space left on device")

        for number in (1, 2, 3):
            every.entries.put(entry(f"sb{number}", deadline=1.0))
        put = every.entries.put
        monkeypatch.setattr(every.entries, "put", full)
        every._changed.set()
        await until(lambda: every.entries.get("sb3") is None and "sb2" in every._again)
        await until(lambda: set(every._ending) == {"sb1"})
        monkeypatch.setattr(every.entries, "put", put)
        every.until(every.entries.get("sb4"), 0)
        await until(lambda: every.entries.get("sb4") is None)


def test_what_a_fork_under_way_rests_on_is_not_removed(states, monkeypatch):
    states |= dict.fromkeys(("sb1", "sb2", "sb3"), "running")
    there: list[str] = []

    async def saved(_, name):
        there.append(name)
        return SimpleNamespace(name=name)

    async def live(*_):
        async def line():
            pass

        return SimpleNamespace(line=line, machine=None)

    monkeypatch.setattr(making, "saved", saved)
    monkeypatch.setattr(Sandboxes, "live", live)
    monkeypatch.setattr(sandboxes.checkpoints, "every", lambda: [SimpleNamespace(name=one) for one in there])
    monkeypatch.setattr(sandboxes.checkpoints, "remove", there.remove)

    @within(entry("sb1"), entry("sb2"), most=9)
    async def _(every):
        async def forked(*_):
            await every.kill(every.entries.get("sb2"))
            assert len(there) == 1, "it was removed with another sandbox"
            raise ValueError("it goes wrong")

        async def saved_alone(machine, name):
            made = await saved(machine, name)
            await every.kill(every.entries.get("sb3"))
            assert there, "nobody has an entry yet"
            return made

        every.entries.put(entry("sb3"))
        monkeypatch.setattr(making, "saved", saved_alone)
        monkeypatch.setattr(making, "forked", forked)
        with pytest.raises(ValueError, match="wrong"):
            await every.fork(every.entries.get("sb1"), ["sb7"], 5)
        assert there == [] and [one.id for one in every.entries] == ["sb1"]


def test_a_damaged_entry_does_not_keep_the_others_from_being_served(states, caplog):
    states["sb1"] = "running"

    @within(entry("sb1"))
    async def _(every):
        for name, text in {"sb2": "{", "sb3": "[]", "sb4": "{}"}.items():
            (sandboxes.sandboxes_dir() / f"{name}.json").write_text(text)

    @within()
    async def _(every):
        assert [one.id for one in every.entries] == ["sb1"]

    assert all(f"{name}.json is no entry" in caplog.text for name in ("sb2", "sb3", "sb4"))
