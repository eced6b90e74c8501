"""What is said of a machine that has just come from another host: nothing, what its clock is, or that its QEMU has ended."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tinamou.guest.clock import Clock
from tinamou.machine import arriving


class Came:
    """The record of one that runs, or has ended."""

    def __init__(self, *, running: bool) -> None:
        self.running, self.spec = running, {"name": "web"}


def said(monkeypatch: pytest.MonkeyPatch, setting: Any, *, running: bool) -> str:
    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(arriving, "_as_usual", nothing)
    monkeypatch.setattr(arriving, "replicate", lambda *_: None)
    monkeypatch.setattr(arriving, "newest", lambda record: record)
    monkeypatch.setattr(arriving, "set_clock", setting)
    return asyncio.run(arriving.settle_in(Came(running=running), object()))  # type: ignore[arg-type]


def test_a_guest_whose_qemu_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:

    async def waits(*_: object, **__: object) -> Clock:
        await asyncio.sleep(3600)
        raise AssertionError

    note = said(monkeypatch, waits, running=False)
    assert note == f"its QEMU ended on {os.uname().nodename} once it ran there: it is off there"


@pytest.mark.parametrize(("clock", "note"), [(Clock("web", "agent", 0.1), ""), (Clock("web", why="no"), "the clock of")])
def test_what_became_of_its_clock_is_said(monkeypatch: pytest.MonkeyPatch, clock: Clock, note: str) -> None:
    async def sets(*_: object, **__: object) -> Clock:
        return clock

    heard = said(monkeypatch, sets, running=True)
    assert heard.startswith(note)
    assert bool(heard) == bool(note)
