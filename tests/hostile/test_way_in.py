"""Data goes by the resident's line, which a guest without one is given; by its agent where it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from lying import machine

from tinamou.errors import GuestError
from tinamou.guest.command import Completed, command
from tinamou.guest.resident import Line
from tinamou.operations import commands


class Given(Line):
    """A line that a guest was given."""

    def __init__(self) -> None:
        self.closed = False

    async def stream(self, argv: list[str], out: Any, err: Any, **how: Any) -> Completed:
        out(b"by the line")
        return Completed(7)

    def close(self) -> None:
        self.closed = True


def streamed() -> tuple[int, bytes]:
    heard = bytearray()
    status = asyncio.run(commands.stream("one", command(["true"]), heard.extend, print))
    return status, bytes(heard)


def test_a_guest_is_given_the_line(state: object, monkeypatch: pytest.MonkeyPatch) -> None:
    line, asked = Given(), []

    async def install(agent: Any, path: str, arch: str, reach: Any) -> Given:
        asked.append((path.rsplit("/", 1)[-1], arch))
        return line

    monkeypatch.setattr("tinamou.guest.resident.install.install", install)
    with machine("one") as record:
        assert streamed() == (7, b"by the line")
        assert asked == [("resident.sock", record.arch)]
    assert line.closed


def test_one_that_cannot_run_it_is_asked_by_its_agent(state: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async def install(*_: Any) -> Given:
        raise GuestError("no folder to run a program from")

    monkeypatch.setattr("tinamou.guest.resident.install.install", install)
    with machine("one"):
        status, heard = streamed()
    assert status == 0
    assert b"by the line" not in heard


def test_windows_is_given_nothing(state: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async def install(*_: Any) -> Given:
        raise AssertionError("a program for Linux")

    async def is_windows(_: Any) -> bool:
        return True

    monkeypatch.setattr("tinamou.guest.resident.install.install", install)
    monkeypatch.setattr("tinamou.guest.agent.Agent.is_windows", is_windows)
    with machine("one"), contextlib.suppress(GuestError):  # what this agent does as Windows is another matter
        streamed()


def test_other_users_have_only_the_agent(state: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async def install(*_: Any) -> Given:
        raise AssertionError("the resident's socket is the owner's")

    monkeypatch.setattr("tinamou.guest.resident.install.install", install)
    monkeypatch.setattr(commands, "of_others", lambda record: True)
    with machine("one"):
        assert streamed()[0] == 0
