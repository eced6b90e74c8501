"""What stands between QEMU and the host, decided: calls by what the machine has, cores by what the host has."""

from __future__ import annotations

import dataclasses

import pytest
from made_facts import KVM_WORKS, TCG, TINY, facts

from tinamou.blueprint.stored import plain, plan_from
from tinamou.errors import PlanError
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.tuning.syscalls import EVERY

SMALL = {"net": [{"type": "none"}], "devices": {"hotplug": 0}}
CABLE = {"type": "stream", "socket": "/srv/cable", "listen": True}


def groups(spec=None, known=None):
    return {one.group for one in plan(load_spec({**SMALL, **(spec or {})}), known or facts()).confinement.calls} - set(EVERY)


def on_host(known, **host):
    return dataclasses.replace(known, host=dataclasses.replace(known.host, **host))


def trying(known, **permits):
    return dataclasses.replace(known, permits=dataclasses.replace(known.permits, **permits))


def test_a_machine_is_allowed_what_it_has():
    assert groups(known=facts(TINY, TCG)) == set()
    assert groups(known=facts(TINY, KVM_WORKS)) == {"kvm"}
    assert groups({"net": [{"type": "user"}]}, facts(TINY, TCG)) == {"internet"}
    assert groups({"display": "vnc"}, facts(TINY, TCG)) == {"server"}
    assert groups({"net": [CABLE]}, facts(TINY, TCG)) == {"server"}
    assert groups({"devices": {"hotplug": 1}}, facts(TINY, TCG)) == {"server"}
    script = dataclasses.replace(facts(TINY, TCG), qemu=dataclasses.replace(facts().qemu, script=True))
    assert groups(known=script) == {"wrapper"}


@pytest.mark.parametrize("way", ["io_uring", "native", "threads"])
def test_requests_are_queued_in_allowed_ways(way):
    known, disk = trying(facts(TINY, TCG), io_uring="", native=""), {"size": "1G", "aio": way, "cache": "none"}
    assert groups({"disk": [disk]}, known) == {way} - {"threads"}
    assert "io_uring" in groups({"disk": [{"size": "1G"}]}, known)
    assert groups({"disk": [{"size": "1G"}]}, trying(known, io_uring="no", native="no")) == set()


def test_the_list_can_be_left_out_and_says_so():
    made = plan(load_spec({"security": {"syscalls": "qemu"}}), facts())
    assert made.confinement.calls == ()
    assert any("only one" in note.text for note in made.notes)
    other = plan(load_spec({}), on_host(facts(TINY, TCG), arch="s390x"))
    assert other.confinement.calls == ()
    assert any("s390x" in note.text for note in other.notes)
    assert not any("only one" in note.text for note in plan(load_spec({}), facts()).notes)


def test_a_stored_plan_keeps_it():
    made = plan(load_spec({}), facts())
    assert plan_from(plain(made)).confinement == made.confinement
    old = plain(made)
    del old["confinement"]["calls"]
    assert plan_from(old).confinement.calls == ()


@pytest.mark.parametrize(
    ("smt", "able", "wish", "own"),
    [
        (True, True, "auto", True),
        (True, True, "require", True),
        (True, True, "off", False),
        (True, False, "auto", False),
        (False, False, "auto", False),
    ],
)
def test_cores_are_its_own_where_they_have_threads(smt, able, wish, own):
    spec = load_spec({"security": {"sched_core": wish}})
    made = plan(spec, on_host(facts(), smt=smt, core_scheduling=able))
    assert made.confinement.own_cores is own
    assert any("CONFIG_SCHED_CORE" in note.text for note in made.notes) is (smt and not able)


@pytest.mark.parametrize("smt", [True, False])
def test_cores_that_cannot_be_its_own_are_refused_where_required(smt):
    with pytest.raises(PlanError) as told:
        plan(load_spec({"security": {"sched_core": "require"}}), on_host(facts(), smt=smt, core_scheduling=False))
    assert [one.path for one in told.value.problems] == ["security.sched_core"]
