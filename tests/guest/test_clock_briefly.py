"""A guest's clock is set by a line that is one process's alone for a moment; where that cannot be, by a shared one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from running import run, scripted

from tinamou.guest import clock
from tinamou.guest.clock import Clock, set_clock
from tinamou.guest.resident import HeldError, Line
from tinamou.guest.resident.frames import HEADER
from tinamou.state.record import Record


class Guest:
    """A resident that answers, on the lines from ``since`` on; ``told`` is how often it was told what time it is."""

    def __init__(self, since: int = 1) -> None:
        self.since = since
        self.lines = self.told = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        answers = self.lines >= self.since
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, channel, size = HEADER.unpack(await reader.readexactly(HEADER.size))
                payload = await reader.readexactly(size)
                if chr(kind) == "I":
                    self.told += 1
                    payload = bytes(2 if payload[:1] == b"t" else 1)
                if answers:
                    writer.write(HEADER.pack(kind, channel, len(payload)) + payload)
        writer.close()


def setting(state: Path, guest: Guest) -> Clock:
    """What became of its clock."""

    async def work() -> Clock:
        async with asyncio.timeout(120), scripted(state / "resident.sock", guest.serve):
            return await set_clock(Record("web", str(state), {"name": "web"}, resident=True), briefly=True)

    found: Clock = run(work())
    return found


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that were asked of the process that shares one: each is given one of its own."""
    asked: list[str] = []
    own = Line

    def sharing(path: str) -> Line:
        asked.append(path)
        return own(path)

    monkeypatch.setattr(clock, "shared", sharing)
    return asked


def test_no_process_is_started_where_the_guest_answers(state: Path, shared: list[str]) -> None:
    guest = Guest()
    found = setting(state, guest)
    assert (found.by, found.why, found.note) == ("resident", "", "")
    assert (guest.lines, guest.told, shared) == (1, 1, [])


def test_a_guest_that_is_slow_is_left_to_a_line_that_others_can_use(
    state: Path, shared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_BRIEFLY", 0.2)
    guest = Guest(since=2)
    assert setting(state, guest).by == "resident"
    assert (guest.lines, len(shared)) == (2, 1)


def test_a_line_that_another_process_has_is_shared(state: Path, shared: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def held(_: str) -> Callable[[], None]:
        raise HeldError(1)

    monkeypatch.setattr(clock, "Line", held)
    assert setting(state, Guest()).by == "resident"
    assert len(shared) == 1
