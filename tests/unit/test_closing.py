"""A descriptor is closed with its block; what a block began is taken back where it fails, and only there."""

from __future__ import annotations

import asyncio
import os

import pytest

from tinamou.system.closing import Closing, IfFailed


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("fails", [False, True])
def test_a_descriptor_is_closed_however_its_block_ends(fails):
    try:
        with Closing(os.open(os.devnull, os.O_RDONLY)) as descriptor:
            assert not closed(descriptor)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert closed(descriptor)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_what_was_begun_is_taken_back_where_the_block_fails(error):
    undone: list[tuple[int, bool]] = []
    with pytest.raises(error), IfFailed(lambda number, *, whole: undone.append((number, whole)), 3, whole=True):
        raise error
    assert undone == [(3, True)]


def test_nothing_is_taken_back_of_a_block_that_ends():
    undone: list[int] = []
    with IfFailed(undone.append, 1):
        pass
    assert undone == []


def test_what_is_awaited_to_take_it_back():
    undone: list[str] = []

    async def undo(what: str) -> None:
        await asyncio.sleep(0)
        undone.append(what)

    async def work(error: type[BaseException] | None) -> None:
        async with IfFailed(undo, "line"):
            if error:
                raise error

    asyncio.run(work(None))
    assert undone == []
    with pytest.raises(ValueError):
        asyncio.run(work(ValueError))
    assert undone == ["line"]
