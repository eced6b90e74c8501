"""Schedules: their unit files, their times, and which snapshots stay."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.schedule import Schedule, parse_every, scheduled_units, surplus, units


@pytest.mark.parametrize(
    ("every", "calendar"), [("15min", "*:0/15"), ("5m", "*:0/5"), ("hourly", "hourly"), ("6h", "0/6:00")]
)
def test_times(every: str, calendar: str) -> None:
    assert parse_every(every) == calendar


@pytest.mark.parametrize("every", ["", "7min", "61min", "0h", "soon", "25h"])
def test_times_that_do_not_repeat_evenly_are_refused(every: str) -> None:
    with pytest.raises(StateError, match="no time"):
        parse_every(every)


def test_units_are_what_systemd_reads(tmp_path: Path) -> None:
    made = units(Schedule("web", "15min", 8, quiesce=True), ["/usr/bin/env", "tinamou"], {"TINAMOU_STATE": "/a b"})
    assert set(made) == {"tinamou-web-15min.service", "tinamou-web-15min.timer"}
    assert "snapshot scheduled web --label 15min --keep 8 --quiesce" in made["tinamou-web-15min.service"]
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in scheduled_units(tmp_path, "web")] == sorted(made)
    assert scheduled_units(tmp_path, "we") == []
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    timer = tmp_path / "tinamou-web-15min.timer"
    done = subprocess.run(["systemd-analyze", "verify", timer], capture_output=True, text=True, check=False)
    assert "tinamou-web" not in done.stderr


def test_the_newest_of_a_schedule_stay() -> None:
    shots = tuple(Snapshot(n, f"s{n}", {}, schedule="daily" if n % 2 else "") for n in range(1, 11))
    assert [one.number for one in surplus(History(snapshots=shots), "daily", 2)] == [1, 3, 5]
    assert surplus(History(snapshots=shots), "daily", 9) == ()
