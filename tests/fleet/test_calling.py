"""The other side of a move, called ahead: its line is taken, or hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from sshd_here import Sshd
from typed import eventually

from tinamou import late
from tinamou.errors import StateError
from tinamou.fleet import remote
from tinamou.fleet.calling import called
from tinamou.fleet.frames import LostError
from tinamou.fleet.hosts import Host

LONG = 120.0


def does(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, LONG))


def runs(server: Sshd, script: str) -> Host:
    """The host, where this stands for tinamou: what it was called with is ``$0``."""
    return late.replace(server.host(), command=("sh", "-c", script))


def test_what_is_there_begins_before_the_line_is_taken(server: Sshd, state: Path) -> None:
    begun = state / "begun"

    async def work() -> None:
        async with called(runs(server, f"echo $0 >{begun}.part; mv {begun}.part {begun}; cat")) as call:
            while not begun.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with call.taken() as frames:
                await frames.say("word", b"and more", of="mine")
                assert await frames.hear("word") == ({"what": "word", "of": "mine"}, b"and more")

    does(work())
    assert begun.read_text() == "receive\n"


def test_the_tinamou_there_hears_what_is_offered(server: Sshd, state: Path) -> None:
    async def work() -> None:
        async with called(server.host(state=state)) as call, call.taken() as frames:
            await frames.say("files", files=[[1, "0" * 64]], address="", peer="")
            assert await frames.hear("has") == ({"what": "has", "sums": [], "ports": [], "why": ""}, b"")
            await frames.say("offer", name="web")
            await frames.hear("open")

    with pytest.raises(StateError, match="the other host offers what is no machine"):
        does(work())


@pytest.mark.parametrize("fails", [False, True])
def test_a_line_that_nobody_takes_is_hung_up(server: Sshd, state: Path, *, fails: bool) -> None:
    over, begun = state / "over", state / "begun"

    async def work() -> None:
        async with called(runs(server, f"echo >{begun}; cat; echo >{over}")):
            while not begun.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not over.exists()
            if fails:
                raise StateError("there is no machine of that name")

    if fails:
        with pytest.raises(StateError, match="no machine"):
            does(work())
    else:
        does(work())
    eventually(over.exists, "it hears that the line has ended")


def test_a_host_that_does_not_answer_is_told_of_when_its_line_is_used(server: Sshd) -> None:
    async def work() -> None:
        async with called(late.replace(server.host(), port=1)) as call, call.taken() as frames:
            await frames.hear("word")

    with pytest.raises(remote.SilentHostError, match="does not answer"):
        does(work())


def test_a_tinamou_there_that_just_ends_is_a_line_that_ended(server: Sshd) -> None:
    async def work() -> None:
        async with called(runs(server, "true")) as call, call.taken() as frames:
            await frames.hear("word")

    with pytest.raises(LostError, match="has ended"):
        does(work())


def test_what_goes_wrong_while_the_line_stands_is_raised_as_it_is(server: Sshd) -> None:
    async def work() -> None:
        async with called(runs(server, "cat")) as call, call.taken():
            raise StateError("there is no room")

    with pytest.raises(StateError, match="no room"):
        does(work())
