"""Which walls the planner lets stand, and what it says of those it does not."""

import dataclasses

import pytest
from made_facts import KVM_WORKS, PCI, TINY, facts

from tinamou.blueprint import StartHelper
from tinamou.errors import PlanError, SpecError
from tinamou.facts import WallFacts
from tinamou.facts.walls import NAMESPACES
from tinamou.planner import plan, plan_card
from tinamou.spec import load_spec

EVERY = tuple(NAMESPACES)
NONE = dict.fromkeys(NAMESPACES, "EPERM")


def made(spec=None, walls=None, known=None):
    known = known or facts()
    return plan(load_spec({"net": [], **(spec or {})}), dataclasses.replace(known, walls=walls or WallFacts({}, False, 7)))


def standing(one):
    return {wall.name for wall in one.confinement.walls if wall.stands}


def why(one, name):
    return next(wall.why for wall in one.confinement.walls if wall.name == name)


def test_all_stand_by_default():
    one = made()
    assert {wall.name for wall in one.confinement.walls} == standing(one)
    assert (one.confinement.namespaces, one.confinement.landlock) == (EVERY, (0, 0, 0))
    assert not [note for note in one.notes if "QEMU" in note.text and "Landlock" in note.text]


def test_without_root_they_stand_inside_a_user_namespace():
    one = made(walls=WallFacts({}, True, 7), known=facts(uid=None))
    assert one.confinement.namespaces == ("user", *EVERY)
    assert "identity" not in standing(one)


@pytest.mark.parametrize(
    ("spec", "said"),
    [({"net": ["user"]}, "net0 is QEMU's own TCP/IP"), ({"qemu_args": ["-watchdog-action", "pause"]}, "qemu_args may use")],
)
def test_what_needs_the_host_s_network_has_it(spec, said):
    one = made(spec)
    assert "network" not in standing(one) and said in why(one, "network")
    assert one.confinement.namespaces == tuple(kind for kind in EVERY if kind != "net")
    assert one.confinement.landlock == (0, 0, 3)
    assert not [note for note in one.notes if said in note.text]


@pytest.mark.parametrize(
    ("net", "has"), [("passt", True), ("tap", True), ("user", False), ({"type": "user", "isolated": True}, True)]
)
def test_cards_that_are_handed_over_need_none(net, has):
    assert ("net" in made({"net": [net]}).confinement.namespaces) is has


@pytest.mark.parametrize(
    ("version", "masks", "stands"),
    [
        (0, (0, 0, 0), set()),
        (1, (0x1FFF, 0, 0), {"files"}),
        (3, (0x7FFF, 0, 0), {"files"}),
        (4, (0x7FFF, 3, 0), {"files", "network"}),
        (7, (0xFFFF, 3, 3), {"files", "network"}),
    ],
)
def test_landlock_where_there_is_no_namespace(version, masks, stands):
    one = made(walls=WallFacts(NONE, True, version))
    assert one.confinement.landlock == masks
    assert (standing(one) & {"files", "processes", "ipc", "hostname", "cgroups", "network"}) == stands
    assert one.confinement.namespaces == ()
    warned = [note.text for note in one.notes if "EPERM" in note.text]
    assert len(warned) == 6 - len(stands) and all(text.startswith("QEMU ") for text in warned)


@pytest.mark.parametrize("name", ["files", "processes", "ipc", "hostname", "cgroups", "network"])
def test_each_can_be_left_out_by_name(name):
    one = made({"confine": {"without": [name]}})
    assert name not in standing(one) and why(one, name).endswith("confine.without names it")
    assert len(one.confinement.namespaces) == len(EVERY) - 1 and not one.confinement.landlock[0]


def test_no_other_can_be():
    with pytest.raises(SpecError) as error:
        load_spec({"confine": {"without": ["rights"]}})
    assert [problem.path for problem in error.value.problems] == ["confine.without[0]"]


def test_devices_and_folders_it_uses_are_let_in():
    assert made(known=facts(TINY, KVM_WORKS)).confinement.devices == ("/dev/kvm",)
    assert made().confinement.writes == ("/var/lib/tinamou/machines/web/run",)
    with_card = made({"pci": ["65:00.0"]}, known=dataclasses.replace(facts(), pci=PCI)).confinement
    assert with_card.devices == ("/dev/vfio/vfio", "/dev/vfio/20") and "/sys/devices" in with_card.reads
    assert made().confinement.devices == made().confinement.reads == ()


def test_a_card_that_needs_the_host_s_network_is_not_plugged_into_a_qemu_apart_from_it():
    known = facts()
    apart = dataclasses.replace(known, net=dataclasses.replace(known.net, apart=True))
    for kind in ("auto", "passt", "tap", {"type": "user", "isolated": True}, {"type": "auto", "forward": ["8080:80"]}):
        plugged = plan_card(load_spec({"net": [kind]}), apart, 0)
        assert next(one for one in plugged.elements if one.kind == "netdev").props["type"] != "user" or "isolated" in str(
            kind
        )
    with pytest.raises(PlanError) as error:
        plan_card(load_spec({"net": ["user"]}), apart, 0)
    assert [problem.path for problem in error.value.problems] == ["net[0].type"]


def test_helpers_have_what_they_bear():
    steps = made({"net": ["passt"], "tpm": True}).steps
    assert {step.name: step.namespaces for step in steps if isinstance(step, StartHelper)} == {"passt": (), "swtpm": EVERY}
