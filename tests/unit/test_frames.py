"""Memory for pictures (Looking Glass): how large it is, what it becomes, and every refusal by name."""

from __future__ import annotations

import dataclasses

import pytest
from made_facts import DEBIAN, TCG, facts, host, of_arch
from recorded import qemu

from tinamou.blueprint import HandOver, MakeSharedFile
from tinamou.errors import PlanError, SpecError
from tinamou.facts import Facts
from tinamou.parts.frames import size_of
from tinamou.planner import plan
from tinamou.spec import load_spec

GLASS = {"looking_glass": "2560x1440"}


def known(*, root: bool = True) -> Facts:
    there = dataclasses.replace(facts(of_arch(DEBIAN, "x86_64"), TCG), qemu=qemu("11.1", "x86_64"))
    return dataclasses.replace(there, host=dataclasses.replace(host(), is_root=root))


def refused(description: dict[str, object], there: Facts) -> list[str]:
    with pytest.raises(PlanError) as error:
        plan(load_spec(description), there)
    return [problem.path for problem in error.value.problems]


@pytest.mark.parametrize(
    ("asked", "mebibytes"),
    [
        ("1920x1080", 32),
        ("1920x1200", 32),
        ("2560x1440", 64),
        ("3440x1440", 64),
        ("3840x2160", 128),
        ("64M", 64),
        ("1G", 1024),
    ],
)
def test_it_is_as_large_as_its_makers_say(asked: str, mebibytes: int) -> None:
    """Source: the table in https://looking-glass.io/docs/B7/ivshmem_shm."""
    assert size_of(asked).mib == mebibytes


def test_a_file_a_backend_and_a_device() -> None:
    made = plan(load_spec({"display": {**GLASS, "looking_glass_user": "alice"}}), known())
    (file,) = (step for step in made.steps if isinstance(step, MakeSharedFile))
    assert (file.size, file.viewer) == (64 << 20, "alice")
    assert [step.access for step in made.steps if isinstance(step, HandOver) and step.path == file.path] == ["write"]
    (backend,) = (one.props for one in made.elements if one.props.get("mem-path") == file.path)
    (device,) = (one.props for one in made.elements if one.props.get("driver") == "ivshmem-plain")
    assert (backend["share"], backend["size"], device["memdev"]) == (True, 64 << 20, backend["id"])
    assert any("alice can write" in note.text for note in made.notes)
    assert not any("can write" in note.text for note in plan(load_spec({"display": GLASS}), known()).notes)


def test_a_screen_without_a_card_is_for_its_keyboard() -> None:
    bare = {"type": "spice", "video": "none"}
    made = plan(load_spec({"display": {**bare, **GLASS}}), known())
    assert not any(one.id == "video" for one in made.elements)
    assert refused({"display": bare}, known()) == ["display.video"]
    assert refused({"display": {**bare, **GLASS, "type": "vnc"}}, known()) == ["display.video"]


def test_each_refusal_is_by_name() -> None:
    assert "display.looking_glass" in refused({"display": GLASS, "memory": {"forkable": True}}, known())
    asked = {**GLASS, "looking_glass_user": "alice"}
    assert refused({"display": asked}, known(root=False)) == ["display.looking_glass_user"]
    for wrong in ({"looking_glass": "65M"}, {"looking_glass": "x"}, {"looking_glass_user": "a"}, {"looking_glass": "1x1"}):
        with pytest.raises(SpecError, match="looking_glass"):
            load_spec({"display": wrong})
