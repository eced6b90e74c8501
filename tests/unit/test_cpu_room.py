"""Room for virtual CPUs that come later: what is planned for it, and what it does not go with."""

from __future__ import annotations

from typing import Any

import pytest
from made_facts import TINY, facts, of_arch

from tinamou.errors import PlanError, SpecError
from tinamou.planner import plan
from tinamou.spec import load_spec


def smp(spec: dict[str, Any]) -> str:
    [flag] = [one for one in plan(load_spec(spec), facts()).flags if one.name == "smp"]
    return ",".join([str(flag.value), *(f"{key}={value}" for key, value in flag.options.items())])


def test_room_is_part_of_the_topology() -> None:
    assert smp({"cpus": 2}) == "2,sockets=1,cores=2,threads=1"
    assert smp({"cpu": {"count": 2, "max": 8, "threads": 2}}) == "2,sockets=1,cores=4,threads=2,maxcpus=8"


def test_what_was_plugged_in_sits_where_it_did() -> None:
    made = plan(load_spec({"cpu": {"count": 1, "max": 4, "plugged": 2, "cores": 1, "threads": 2}}), facts())
    seats = [one.props for one in made.elements if one.id.startswith("cpu")]
    assert [(one["id"], one["socket-id"], one["core-id"], one["thread-id"]) for one in seats] == [
        ("cpu1", 0, 0, 1),
        ("cpu2", 1, 0, 0),
    ]


@pytest.mark.parametrize(
    "cpu",
    [
        {"count": 4, "max": 2},
        {"count": 1, "max": 2, "plugged": 2},
        {"count": 1, "max": 2, "pin": "auto"},
        {"count": 2, "max": 4, "nodes": 2},
        {"count": 1, "max": 3, "threads": 2},
    ],
)
def test_refused(cpu: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        load_spec({"cpu": cpu})


def test_a_board_that_takes_none_later() -> None:
    with pytest.raises(PlanError, match="takes no CPU while it runs"):
        plan(load_spec({"arch": "aarch64", "cpu": {"max": 2}}), facts(of_arch(TINY, "aarch64")))
