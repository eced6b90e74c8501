"""A use case under way: what it returns and raises, how far it is, and who hears of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tinamou.errors import StateError, TinamouError
from tinamou.images.progress import Progress, silent
from tinamou.operations.operation import begin
from tinamou.system.loop_thread import in_thread


async def count_up(name: str, to: int, *, progress: Progress = silent) -> str:
    progress("here", 0.25)
    progress("there", 0.5)
    await in_thread(progress, "in a thread", None)
    await asyncio.sleep(0)
    return f"{name} {to}"


async def break_off(name: str, error: Exception) -> None:
    raise error


def test_its_result_and_what_was_heard() -> None:
    async def whole() -> None:
        heard: list[tuple[str, str]] = []
        threads: set[int] = set()
        one = begin(count_up, "m", 7)
        one.listen(lambda it: heard.append((it.progress[0], it.state)))
        one.listen(lambda _: threads.add(threading.get_ident()))
        assert (one.verb, one.about, one.state, one.ended) == ("count up", "m", "running", 0.0)
        assert await one.result() == "m 7"
        assert (one.state, one.error) == ("done", None) and one.ended >= one.started > 0
        assert heard == [("here", "running"), ("there", "running"), ("in a thread", "running"), ("in a thread", "done")]
        assert threads == {threading.get_ident()}, "on the loop, also what a thread tells"
        assert await one.result() == "m 7", "asked again, it is the same"
        told = one.to_json()
        assert (told["state"], told["progress"], told["error"]) == ("done", {"text": "in a thread", "fraction": None}, None)

    asyncio.run(whole())


@pytest.mark.parametrize("error", [StateError("m is running", fix="stop it"), OSError("no space")])
def test_what_it_raises_is_raised_and_kept_where_it_is_ours(error: Exception) -> None:
    async def whole() -> None:
        one = begin(break_off, "m", error)
        with pytest.raises(type(error)):
            await one.result()
        ours = error if isinstance(error, TinamouError) else None
        assert (one.state, one.error) == ("failed", ours)
        assert one.to_json()["error"] == (ours.to_json() if ours else None)

    asyncio.run(whole())


def test_cancelled_it_cleans_up_first() -> None:
    done: list[str] = []

    async def wait_long(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append(name)

    async def whole() -> None:
        one = begin(wait_long, "m")
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.result()
        assert (one.state, one.error, done) == ("cancelled", None, ["m"])

    asyncio.run(whole())


def test_who_no_longer_waits_for_it_does_not_end_it() -> None:
    async def whole() -> None:
        go = asyncio.Event()

        async def wait_for_it(name: str) -> str:
            await go.wait()
            return name

        one = begin(wait_for_it, "m")
        waiting = asyncio.ensure_future(one.result())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert one.state == "running"
        go.set()
        assert await one.result() == "m"

    asyncio.run(whole())
