"""What is written of a plan stays true while cards are plugged in and taken out again."""

import dataclasses
import json

import pytest
from host_trees import make_host
from made_facts import DEBIAN, KVM_WORKS, facts

from tinamou.blueprint import HandOver, StartHelper
from tinamou.blueprint.stored import plain, plan_from, plugged, unplugged
from tinamou.planner import plan, plan_card
from tinamou.spec import load_spec

TAPS = {"net": ["tap", "tap"]}
"""Two cards whose last step says the same: one of them leaves the other's."""


def without(number, spec):
    """The plan of the machine before the card of that number was there."""
    cards = ["none" if index == number else card for index, card in enumerate(spec["net"])]
    return plain(plan(load_spec({**spec, "net": cards}), facts()))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("net", [["tap", "tap"], ["user", "passt"], [{"type": "user", "forward": ["8080:80"]}, "bridge"]])
def test_taking_out_undoes_plugging_in(net, number):
    before, part = without(number, {"net": net}), plan_card(load_spec({"net": net}), facts(), number)
    during = plugged(before, part)
    whole = plain(plan(load_spec({"net": net}), facts()))
    assert sorted(during["outside"]) == sorted(whole["outside"])
    assert {one["props"].get("id") for one in during["elements"]} == {one["props"].get("id") for one in whole["elements"]}
    assert {one["path"] for one in during["steps"]} == {one["path"] for one in whole["steps"]}
    assert unplugged(during, part) == before


def test_of_two_that_say_the_same_only_one_is_taken_out():
    whole = plain(plan(load_spec(TAPS), facts()))
    said = "confinement (QEMU is handed the open queues)"
    assert whole["outside"].count(said) == 2
    left = unplugged(whole, plan_card(load_spec(TAPS), facts(), 1))
    assert left["outside"].count(said) == 1
    assert len(whole["outside"]) - len(left["outside"]) == 2


def test_what_was_never_plugged_in_leaves_nothing_out():
    before = plain(plan(load_spec({"net": ["user"]}), facts()))
    assert unplugged(before, plan_card(load_spec({"net": ["user", "tap"]}), facts(), 1)) == before


def test_what_lies_in_its_folder_is_no_hindrance_to_a_copy():
    """Firmware's variables, disks, a seed with its key, sockets, a control group, a TPM, a forwarded port."""
    everything = {
        "firmware": "uefi",
        "display": "vnc",
        "tpm": True,
        "limits": {"cpu": 1.5},
        "disk": [{"size": "1G"}],
        "net": [{"type": "user", "forward": ["8080:80"]}],
    }
    made = plan(load_spec(everything), facts(DEBIAN))
    kinds = {type(step).__name__ for step in made.steps}
    assert kinds >= {"CopyFile", "CreateImage", "CreateOverlay", "BuildIso", "MakeSshKey", "MakeDir", "MakeCgroup"}
    assert kinds >= {"SetUpTpm", "StartHelper", "ReservePort", "HandOver"}
    assert plain(made)["outside"] == []


def test_a_helper_that_cannot_travel_is_one():
    made = plan(load_spec({"net": ["passt"]}), facts())
    assert plain(made)["outside"] == ["net (passt)"]
    assert plain(made)["helpers"] == []


@pytest.mark.parametrize("spec", [{"tpm": True, "disk": [{"size": "1G"}], "net": ["user"]}, {"cpus": 2, "pin": "auto"}])
def test_what_is_read_back_starts_the_same_machine(spec):
    """But for where its threads run, which is decided at each start."""
    known = facts(DEBIAN, KVM_WORKS)
    kept = {name: getattr(known.host, name) for name in ("groups", "devices", "tools")}
    made = plan(load_spec(spec), dataclasses.replace(known, host=make_host(cores=4, **kept)))
    assert (made.pinning is not None) == ("pin" in spec)
    back = plan_from(json.loads(json.dumps(plain(made))))
    helpers = tuple(step for step in made.steps if isinstance(step, StartHelper) and step.travels)
    assert len(helpers) == ("tpm" in spec)
    assert back.steps == (*helpers, *(step for step in made.steps if isinstance(step, HandOver)))
    assert (back.notes, back.pinning) == ((), None)
    assert dataclasses.replace(back, steps=made.steps) == dataclasses.replace(made, notes=(), pinning=None)
