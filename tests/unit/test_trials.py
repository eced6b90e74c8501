"""Trials change what they name and nothing else, and call a winner only what is more than the spread."""

import pytest

from tinamou.errors import PlanError
from tinamou.machine.trials import CHOICES, Measured, judge, merged, named, twin
from tinamou.spec import load_spec

SPEC = {"name": "web", "image": "tiny", "memory": {"size": "1G"}, "disk": [{"path": "/d.img", "cache": "none"}, "/e.img"]}


def test_change_is_laid_over():
    assert merged(SPEC, {"memory": {"hugepages": "2M"}})["memory"] == {"size": "1G", "hugepages": "2M"}
    changed = merged(SPEC, {"disk": {"aio": "io_uring"}})["disk"]
    assert changed == [{"path": "/d.img", "cache": "none", "aio": "io_uring"}, {"path": "/e.img", "aio": "io_uring"}]
    assert SPEC["memory"] == {"size": "1G"}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_every_twin_is_a_machine(choice):
    for way in choice.ways.values():
        settings = twin(SPEC, choice, way)
        spec = load_spec(settings)
        assert not spec.name
        assert spec.net == ()
        assert all(disk.size for disk in spec.disk)
        assert str(spec.memory.size) == "1G"
        assert all("/d.img" not in str(disk) for disk in settings["disk"])


def test_judged_by_the_spread():
    seconds = {"a": (1.0, 1.1, 1.2), "b": (1.15, 2.0, 2.1), "c": (3.0, 3.1, 3.2)}
    (overlap,) = judge([Measured("x", way, seconds[way]) for way in "ab"])
    assert (overlap.winner, overlap.clear) == ("a", False)
    (apart,) = judge([Measured("x", way, seconds[way]) for way in "ca"])
    assert (apart.winner, apart.clear, round(apart.gain, 2)) == ("a", True, 0.65)
    (few,) = judge([Measured("x", "a", (1.0, 1.0)), Measured("x", "c", (3.0, 3.0))])
    assert not few.clear
    assert list(judge([Measured("x", "a", (1.0,)), Measured("x", "b", failed="no io_uring")])) == []


def test_unknown_choice():
    assert named(()) == CHOICES
    with pytest.raises(PlanError, match="no choice named speed"):
        named(("speed",))
