"""What is kept of sandboxes where somebody else wrote it; waits that are ended while what they wait for comes."""

from __future__ import annotations

import asyncio
import json

import pytest

from tinamou import late
from tinamou.service.agents.e2b.entries import Entry, Shelf, Snapshot
from tinamou.service.agents.e2b.filing import _changes
from tinamou.service.agents.e2b.processes import Process
from tinamou.service.feed import Listener

SOUND = late.asdict(Entry("sb1", "sb1", "token:x", "base", "s", 1.0, 2.0, {"a": "b"}, {"C": "d"}, ready=True))
SAVED = late.asdict(Snapshot("snap1", "token:x", "sb1", 1.0, ("first",)))


def test_what_was_kept_is_read_again(tmp_path):
    Shelf(tmp_path, Entry).put(Entry(**SOUND))
    (tmp_path / "snapshots").mkdir()
    Shelf(tmp_path / "snapshots", Snapshot).put(Snapshot(**SAVED))
    assert [late.asdict(one) for one in Shelf(tmp_path, Entry)] == [SOUND]
    assert [one.names for one in Shelf(tmp_path / "snapshots", Snapshot)] == [("first",)]
    (tmp_path / "sb1.json").write_text(json.dumps({**SOUND, "of_a_later_version": 1}))
    assert [one.id for one in Shelf(tmp_path, Entry)] == ["sb1"]


@pytest.mark.parametrize(
    "odd",
    [
        *({"id": one} for one in ("sb2", "../sb1", "", 7, None)),
        *({"machine": one} for one in ("../../etc", "", "a/b", 1, ["sb1"])),
        *({"deadline": one} for one in ("soon", None, float("nan"), float("inf"), True)),
        *({"metadata": one} for one in ([], {"a": 1}, "a", {"a": None})),
        *({"env": {"A": 1}}, {"owner": None}, {"token": 5}, {"ready": "yes"}, {"auto_pause": 1}, {"checkpoint": "../x"}),
    ],
    ids=str,
)
def test_an_entry_whose_fields_are_not_of_their_kind_is_none(tmp_path, caplog, odd):
    (tmp_path / "sb1.json").write_text(json.dumps({**SOUND, **odd}))
    assert [*Shelf(tmp_path, Entry)] == []
    assert "is no entry of a sandbox" in caplog.text


@pytest.mark.parametrize(
    "odd",
    [{"id": "snap2"}, {"sandbox": "/"}, {"created": float("nan")}, {"names": 5}, {"names": [5]}, {"owner": 1}],
    ids=str,
)
def test_nor_is_such_a_snapshot(tmp_path, odd):
    (tmp_path / "snap1.json").write_text(json.dumps({**SAVED, **odd}))
    assert [*Shelf(tmp_path, Snapshot)] == []


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"', "[" * 100_000], ids=lambda text: text[:4])
def test_nor_is_anything_else(tmp_path, text):
    (tmp_path / "sb1.json").write_text(text)
    assert [*Shelf(tmp_path, Entry)] == []


class _Watch:
    def __init__(self):
        self.changed, self.error = asyncio.Event(), None

    def take(self):
        self.changed.clear()
        return []

    def stop(self):
        pass


def _listener():
    one = Listener(lambda: None)
    return one.next(60.0), lambda: one.hear({"kind": "x"})


def _watch():
    one = _Watch()
    return anext(_after_start(_changes(one, 60.0))), one.changed.set


def _process():
    one = Process.__new__(Process)
    one._hearers, one.pid = set(), 1
    queue: asyncio.Queue = asyncio.Queue()
    return anext(_after_start(one._heard(queue, 60.0))), lambda: queue.put_nowait({"data": {}})


async def _after_start(events):
    await anext(events)
    async for one in events:
        yield one


@pytest.mark.parametrize("what", [_listener, _watch, _process])
@pytest.mark.parametrize("ticks", range(4))
def test_a_wait_that_is_ended_ends_though_what_it_waits_for_comes(what, ticks):
    """`asyncio.wait_for` of Python 3.11 answers what came, and the request to end is lost."""

    async def go():
        waits, come = what()
        task = asyncio.ensure_future(waits)
        for _ in range(5):
            await asyncio.sleep(0)
        come()
        for _ in range(ticks):
            await asyncio.sleep(0)
        if task.done():
            return
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert task.cancelled()

    asyncio.run(go())
