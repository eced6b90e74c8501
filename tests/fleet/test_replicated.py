"""A machine that is described as replicated has a timer for it, and says how old its newest replica is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from two_hosts import Two
from typed import call, tinamou

from tinamou.doctor.machine import _replica
from tinamou.errors import SpecError
from tinamou.snapshots.schedule import schedules
from tinamou.spec import load_spec
from tinamou.state.record import Record, create
from tinamou.system.paths import unit_dir

DISK = ("--net", "none", "--memory", "160M", "--set", 'disk=[{size="16M"}]')
RULE = ("--set", 'replicate.to="there"', "--set", 'replicate.every="5m"')


@pytest.mark.parametrize(
    "given", [{"to": "there"}, {"every": "5m"}, {"to": "there", "every": "7m"}, {"to": "/x", "every": "5m"}]
)
def test_half_a_rule_and_no_time_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="replicate"):
        load_spec({"replicate": given})


def said(every: str, age: float | None) -> tuple[str, str]:
    at = {"host": "there", "at": time.time() - age} if age is not None else {}
    spec = {"replicate": {"to": "there", "every": every}} if every else {}
    found = _replica(Record(name="web", directory="/nosuch", spec=spec, replicated=at), None)
    return str(found.severity), found.evidence


def test_doctor_says_how_old_a_replica_is() -> None:
    assert said("", None)[0] == "info"
    assert said("5m", None)[0] == "warning"
    assert said("5m", 60.0)[0] == "good"
    level, text = said("5m", 7200.0)
    assert level == "warning"
    assert "5m" in text
    assert said("6h", 7200.0)[0] == "good"
    assert said("", 7200.0)[0] == "good"


def test_ls_says_how_old_a_replica_is_and_warns_of_an_old_one(state: Path) -> None:
    for name, age in (("new", 60), ("old", 660)):
        spec = {"name": name, "replicate": {"to": "there", "every": "5m"}}
        folder = state / "machines" / name
        folder.mkdir(parents=True)
        create(Record(name=name, directory=str(folder), spec=spec, replicated={"host": "there", "at": time.time() - age}))
    rows = {row["name"]: row for row in json.loads(tinamou("ls", "--json"))}
    assert rows["new"]["replica"]["age"] == pytest.approx(60, abs=50)
    assert rows["new"]["late"] is None
    assert "asked for is 5m" in rows["old"]["late"]
    listed = call("ls")
    assert [line.split()[-2:] for line in listed.stdout.splitlines()[1:]] == [["1m", "there"], ["11m", "there"]]
    assert "old: there has its disks as they were 66" in listed.stderr
    assert "new:" not in listed.stderr


@pytest.mark.vm
def test_its_timer_is_there_from_its_first_start_on(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", *DISK, *RULE)
    (schedule,) = schedules(unit_dir(), "web")
    assert (schedule.to, schedule.every) == ("there", "5m")
    assert json.loads(tinamou("show", "web", "--json"))["replica"] is None
    tinamou("replicate", "web", "there")
    shown = json.loads(tinamou("show", "web", "--json"))["replica"]
    assert shown["host"] == "there"
    assert shown["age"] == pytest.approx(time.time() - shown["at"], abs=120)
    tinamou("kill", "web")
    taken = call("replica", "take", "web", **two.places)
    assert "tinamou set web replicate.to=HOST" in taken.stderr
    away = two.away()
    assert away is not None
    assert "replicate" not in away.spec
    tinamou("rm", "-f", "web")
    assert schedules(unit_dir(), "web") == []


@pytest.mark.vm
def test_one_that_moves_says_where_its_replicas_can_no_more_go(two: Two) -> None:
    tinamou("run", "-d", "--name", "web", *DISK, *RULE)
    moved = call("move", "web", "there")
    assert moved.returncode == 0, moved.stderr
    assert "it is to be replicated to there, which" in moved.stderr


@pytest.mark.vm
def test_one_that_is_thrown_away_is_refused_by_name() -> None:
    refused = call("run", *DISK, *RULE, "--", "true")
    assert refused.returncode == 112, refused.stderr
    assert "replicate.to" in refused.stderr
