"""The terminal's page of machines, driven by keys as textual's pilot presses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tinamou.state import machines
from tinamou.state.record import Record, create

pytest.importorskip("textual", reason="textual is not installed (pip install 'tinamou[ui]')")

from textual.widgets import DataTable, Static

from tinamou.cli import screens


def machine(state: Any, name: str) -> None:
    folder = state / "machines" / name
    folder.mkdir(parents=True)
    create(Record(name=name, directory=str(folder), spec={"name": name}, image="[b]tiny", arch="x86_64", created=1.0))


def driven(what: Any) -> None:
    """Run a coroutine function with the page and what presses its keys."""

    async def go() -> None:
        app = screens.Machines(0.05)
        async with app.run_test(size=(120, 30)) as pilot:
            await asyncio.wait_for(what(app, pilot), 120)

    asyncio.run(go())


async def until(pilot: Any, holds: Any) -> None:
    while not holds():
        await pilot.pause(0.02)


def said(app: Any) -> str:
    return str(app.query_one("#said", Static).render())


def names(app: Any) -> list[str]:
    table = app.query_one(DataTable)
    return [str(table.get_row_at(index)[0]) for index in range(table.row_count)]


def test_machines_are_shown_and_the_chosen_line_stays(state):
    machine(state, "api")
    machine(state, "web")

    async def what(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: names(app) == ["api", "web"])
        table = app.query_one(DataTable)
        assert str(table.get_row_at(0)[5]) == "[b]tiny"  # what others wrote is text
        await pilot.press("down")
        machine(state, "aaa")
        await until(pilot, lambda: names(app) == ["aaa", "api", "web"])
        assert app._chosen() == "web"

    driven(what)


def test_a_machine_is_removed_when_that_is_asked_for_twice(state):
    machine(state, "web")

    async def what(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: names(app) == ["web"])
        await pilot.press("D")
        await until(pilot, lambda: "D again" in said(app))
        assert (state / "machines/web").exists()
        await pilot.press("D")
        await until(pilot, lambda: names(app) == [])
        assert not (state / "machines/web").exists()

    driven(what)


def test_what_cannot_be_done_is_said(state):
    machine(state, "web")

    async def what(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: names(app) == ["web"])
        await pilot.press("x")
        await until(pilot, lambda: "web" in said(app) and "…" not in said(app))
        assert "run" in said(app)
        await pilot.press("c")
        await until(pilot, lambda: "run" in said(app))

    driven(what)


def test_keys_do_what_they_say(state, monkeypatch):
    machine(state, "web")
    done: list[tuple[str, str]] = []

    def doing(verb: str) -> Any:
        async def work(name: str) -> None:
            done.append((verb, name))

        return work

    for verb in ("start", "stop", "pause", "resume"):
        monkeypatch.setattr(screens.cases, verb, doing(verb))

    async def what(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: names(app) == ["web"])
        for key in "sxpr":
            await pilot.press(key)
        await until(pilot, lambda: len(done) == 4)
        assert sorted(done) == sorted((verb, "web") for verb in ("start", "stop", "pause", "resume"))

    driven(what)
    assert [one.name for one in machines.machines()] == ["web"]
