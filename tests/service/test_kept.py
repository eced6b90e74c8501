"""What the service keeps of what happens, and what it goes on after."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from tinamou.errors import LaunchError, StateError
from tinamou.images.progress import Progress
from tinamou.operations.operation import begin
from tinamou.service import feed as feeding
from tinamou.service import lookout as looking
from tinamou.service.feed import Feed
from tinamou.service.lookout import Lookout
from tinamou.service.shared import Service


def shown(state: str, text: str = "", error: Any = None) -> dict[str, Any]:
    progress = {"text": text, "fraction": None}
    times = {"started": 1.0, "ended": None if state == "running" else 2.0}
    whose = {"id": "one", "verb": "start", "about": "web", "caller": "root"}
    return {**whose, "state": state, "progress": progress, "error": error, "result": 1, **times}


def test_progress_is_told_and_not_kept(state):
    service = Service()
    service.feed.open()

    async def heard() -> list[Any]:
        async with service.feed.listening() as listener:
            service._operation(shown("running"))
            for number in range(300):
                service._operation(shown("running", f"{number}"))
            error = LaunchError("no", evidence={"log": "x" * 9000}).to_json()
            service._operation(shown("failed", error=error))
            return [await listener.next(60) for _ in range(302)]

    told = asyncio.run(heard())
    assert [one["id"] for one in told if "id" in one] == [1, 2]
    kept = service.feed.since(0)[0]
    assert [one["data"]["state"] for one in kept] == ["running", "failed"]
    assert "xxx" not in str(kept) and kept[1]["data"]["error"]["error"] == "no"


def test_events_that_are_large_are_not_written_anew_each_time(state, monkeypatch):
    monkeypatch.setattr(feeding, "_REWRITE", 1000)
    written: list[Path] = []
    monkeypatch.setattr(feeding, "replace_text", lambda path, text: (written.append(path), path.write_text(text)))
    feed = Feed(state)
    feed.open()
    for number in range(64):
        feed.tell("machine", "web", {"state": f"{number}" + "x" * 200})
    assert 1 < len(written) < 8
    again = Feed(state)
    again.open()
    assert again.last == 64


def test_progress_from_a_thread_is_told_on_the_loop(state):
    async def work(about: str, *, progress: Progress) -> None:
        await asyncio.to_thread(progress, "half", 0.5)
        await heard.wait()

    def hear(_: Any) -> None:
        threads.append(threading.current_thread())
        heard.set()

    async def whole() -> None:
        nonlocal heard
        heard = asyncio.Event()
        operation = begin(work, "web")
        operation.listen(hear)
        await asyncio.wait_for(operation.result(), 60)
        assert operation.progress == ("half", 0.5)

    heard, threads = asyncio.Event(), list[threading.Thread]()
    asyncio.run(whole())
    assert set(threads) == {threading.current_thread()}


def test_looking_goes_on_after_an_error_which_is_said_once(state, monkeypatch, caplog):
    monkeypatch.setattr(looking, "_ALONE", 0.01)
    lookout, looks, enough = Lookout(Feed(state)), 0, asyncio.Event()

    async def seen() -> Any:
        nonlocal looks
        looks += 1
        if looks == 5:
            enough.set()
        raise StateError("a record is damaged") if looks < 3 else OSError("no room")

    async def whole() -> None:
        monkeypatch.setattr(lookout, "seen", seen)
        nonlocal enough
        enough = asyncio.Event()
        task = asyncio.ensure_future(lookout.run())
        waited = asyncio.ensure_future(enough.wait())
        await asyncio.wait([task, waited], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

    asyncio.run(whole())
    assert looks >= 5
    assert [one.getMessage().partition(": ")[2] for one in caplog.records] == ["a record is damaged", "no room"]


def test_what_a_killed_service_left_of_transfers_is_gone(state):
    left = state / "service/spool/tmpabc/file"
    left.parent.mkdir(parents=True)
    left.write_text("half of it")

    async def whole() -> bool:
        async with Service().running():
            return left.exists()

    assert asyncio.run(whole()) is False
