"""A line to a guest's resident that somebody shares, who may just be ending: another one is tried then, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tinamou.guest.resident.line import LineError
from tinamou.machine.waiting import Waiting
from tinamou.operations import commands


class StandIn:
    """A line that is answered or not; ``met``: it has been, before it failed."""

    def __init__(self, *, answered: bool = False, met: bool = False) -> None:
        self.answered, self.met, self.closed = answered, met, False

    async def hello(self, seconds: float) -> None:
        if not self.answered:
            raise LineError("the line has ended")

    def close(self) -> None:
        self.closed = True


class Waits(Waiting):
    """For a machine that has been started."""

    async def started(self, *, agent: bool = True) -> Any:
        return None

    async def answer(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work


def greeted(monkeypatch: pytest.MonkeyPatch, lines: list[StandIn], timeout: float = 60.0) -> object:
    left = iter(lines)
    monkeypatch.setattr(commands, "_line", lambda _: next(left))
    return asyncio.run(commands._greeted(Waits("m", timeout)))


def test_whose_sharer_ends_is_had_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [StandIn(), StandIn(), StandIn(answered=True)]
    assert greeted(monkeypatch, lines) is lines[2]
    assert [line.closed for line in lines] == [True, True, False]


@pytest.mark.parametrize(
    ("first", "timeout", "tried"), [(StandIn(), 60.0, 3), (StandIn(met=True), 60.0, 1), (StandIn(), 0.0, 1)]
)
def test_whose_guest_fails_or_whose_time_is_up_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, first: StandIn, timeout: float, tried: int
) -> None:
    lines = [first, StandIn(), StandIn(), StandIn(answered=True)]
    with pytest.raises(LineError, match="the line has ended"):
        greeted(monkeypatch, lines, timeout)
    assert [line.closed for line in lines] == [number < tried for number in range(4)]
