"""Pictures of numbers in a line of text, and the verbs that show them."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from tinamou.cli import show, top
from tinamou.cli.plots import spark, timeline
from tinamou.errors import StateError
from tinamou.monitor.stats import Reading
from tinamou.state.record import Record, create


def reading(percent: float | None, name: str = "web") -> Reading:
    return Reading(name, "running", "tcg", 1, 0.0, None, None, None, None, percent=percent)


def test_a_spark_is_as_high_as_its_numbers():
    assert spark([0, 50, 100], 100) == "▁▅█"
    assert spark([-5, 1e9], 100) == "▁█"
    assert spark([], 100) == ""


def test_a_timeline_has_its_stages_one_after_another():
    assert timeline({"probe": 0.75, "launch": 0.25}, width=8) == [
        "probe      750.0 ms  ██████",
        "launch     250.0 ms        ██",
    ]
    assert timeline({"a": 1.0, "b": 0.0}, width=2)[1].endswith("▏")  # what took no time is seen too
    thirds = timeline({"a": 1.0, "b": 2.0}, width=4)
    assert [line.partition("ms  ")[2] for line in thirds] == ["█▍", " ███"], "an eighth of a column is told"
    halves = timeline({"a": 1.0, "b": 1.0})
    assert [line.partition("ms  ")[2] for line in halves] == ["█" * 20, " " * 20 + "█" * 20]
    assert timeline({}) == []


def test_top_shows_how_busy_machines_were_where_there_is_room():
    lately = top.Lately()
    for percent in (0.0, 100.0):
        told = lately.told([(reading(percent), None)])
    assert told == {"web": "▁█"}
    console = Console(width=120)
    with console.capture() as shown:
        console.print(top._screen([(reading(5.0), None)], told))
    assert "CPU LATELY" in shown.get() and "▁█" in shown.get()
    with console.capture() as shown:
        console.print(top._screen([(reading(5.0), None)]))
    assert "LATELY" not in shown.get()
    assert lately.told([(reading(None, "other"), None)]) == {"other": ""}


def test_what_is_remembered_is_bounded():
    lately = top.Lately()
    for _ in range(100):
        told = lately.told([(reading(1.0), None)])
    assert len(told["web"]) == 20


def test_show_timeline(state, capsys):
    for name, timings in (("web", {"probe": 0.02, "launch": 0.01}), ("new", {})):
        folder = state / "machines" / name
        folder.mkdir(parents=True)
        create(Record(name=name, directory=str(folder), spec={}, image="tiny", arch="x86_64", created=1.0, timings=timings))
    show.command("web", timeline=True)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["probe", "launch"]
    show.command("web", timeline=True, json=True)
    assert json.loads(capsys.readouterr().out)[1] == {"stage": "launch", "seconds": 0.01}
    with pytest.raises(StateError, match="not been started"):
        show.command("new", timeline=True)
