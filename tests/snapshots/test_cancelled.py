"""A snapshot that is cancelled while a thread puts its files in place: they are there, or none of them is."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from bare_machine import BareMachine, run

from tinamou.snapshots import create as creating
from tinamou.snapshots.history import load


@pytest.mark.parametrize("fails", [False, True], ids=["done meanwhile", "fails meanwhile"])
def test_nothing_is_undone_behind_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    machine = BareMachine(tmp_path / "m", 1)
    before, files = load(machine.directory), sorted(one.name for one in machine.directory.iterdir())
    began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    place = creating.put_in_place

    def slow(directory: Path, names: Sequence[str]) -> None:
        began.set()
        try:
            assert goes_on.wait(60)
            if fails:
                raise OSError("no room")
            place(directory, names)
        finally:
            ended.set()

    monkeypatch.setattr(creating, "put_in_place", slow)

    async def cancelled() -> None:
        task = asyncio.ensure_future(creating.create(machine.disks, before, "first"))
        await asyncio.to_thread(began.wait, 60)
        task.cancel()
        await asyncio.sleep(0.1)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    with caplog.at_level(logging.ERROR, "asyncio"):
        run(cancelled())
        gc.collect()
    after = load(machine.directory)
    assert (after.intent, after.snapshots, after.disks) == (None, (), before.disks)
    assert sorted(one.name for one in machine.directory.iterdir()) == files
    assert caplog.text == ""
