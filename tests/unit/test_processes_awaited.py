"""Programs run from an event loop: what the loop says of their ends."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tinamou.system.exec_async import piped


def test_one_that_ends_as_it_is_killed_is_nobodys_unknown_child(caplog: pytest.LogCaptureFixture) -> None:
    """One in ten was, and its status told as 255."""
    statuses = set()

    async def ended() -> None:
        for _ in range(100):
            async with piped(["true"]) as process:
                assert process.stdout
                await process.stdout.read()
            statuses.add(process.returncode)

    with caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(ended())
    assert caplog.messages == [] and statuses <= {0, -9}


def test_one_that_runs_on_has_ended_after_the_block() -> None:
    async def ended() -> int | None:
        async with piped(["sleep", "1000"]) as process:
            assert process.returncode is None
        return process.returncode

    assert asyncio.run(ended()) == -9
