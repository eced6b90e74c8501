"""Enlightenments: what each needs is there, for any wish; what is asked of KVM is read as QEMU reads it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_facts import DEBIAN, KVM_WORKS, TCG, facts

from tinamou.errors import PlanError, SpecError
from tinamou.facts import HyperVFacts
from tinamou.facts.hyperv import BITS
from tinamou.parts.hyperv import ENLIGHTENMENTS, closure, parse, without
from tinamou.planner import plan
from tinamou.probe.hyperv import offered, probe_hyperv
from tinamou.spec import load_spec
from tinamou.system.hyperv import hyperv_leaves
from tinamou.system.rooted import Rooted

names = st.sets(st.sampled_from(list(ENLIGHTENMENTS)))


@given(names)
def test_everything_has_what_it_needs(wanted: set[str]):
    found = closure(wanted)
    assert wanted <= set(found) and closure(found) == found
    assert all(set(ENLIGHTENMENTS[name].needs) <= set(found) for name in found)
    assert len(found) == len(set(found))


@given(names, names)
def test_more_wishes_never_give_less(one: set[str], other: set[str]):
    assert set(closure(one)) | set(closure(other)) == set(closure(one | other))


@given(names, names)
def test_what_is_left_out_takes_with_it_what_needs_it_and_nothing_else(wanted: set[str], missing: set[str]):
    whole = closure(wanted)
    kept = without(whole, missing)
    assert closure(kept) == kept and not set(kept) & missing
    assert all(set(closure([name])) & missing for name in set(whole) - set(kept))


@given(names)
def test_a_description_names_them_in_any_spelling(wanted: set[str]):
    for spelled in ("{}", "hv-{}", "hv_{}"):
        text = ",".join(spelled.format(name) for name in wanted if name != "vendor-id")
        assert set(parse(text)) == wanted - {"vendor-id"}


@pytest.mark.parametrize("text", ["passthrough", "syndbg", "nosuch", "relaxed=2", "vendor-id=thirteen-char", "spinlocks=-1"])
def test_what_is_none_is_refused_by_name(text: str):
    with pytest.raises(SpecError) as error:
        load_spec({"cpu": {"hyperv": text}})
    assert "cpu.hyperv" in str(error.value) and text in str(error.value)


def _words(hyperv: str, known: HyperVFacts) -> str:
    made = plan(load_spec({"cpu": {"hyperv": hyperv}}), dataclasses.replace(facts(DEBIAN, KVM_WORKS), hyperv=known))
    return next(flag.value or "" for flag in made.flags if flag.name == "cpu")


INTEL = HyperVFacts("GenuineIntel", nested=True, offered=frozenset(BITS))


def test_a_list_of_ones_own_is_taken_with_what_it_needs():
    assert _words("stimer,vendor-id=any", INTEL) == "host,hv-vpindex=on,hv-time=on,hv-synic=on,hv-stimer=on,hv-vendor-id=any"
    assert _words("off", INTEL) == "host"
    assert _words("auto", INTEL) == "host"


@pytest.mark.parametrize(
    ("hyperv", "known", "reason"),
    [
        ("evmcs", HyperVFacts("AuthenticAMD", nested=True), "for processors of Intel"),
        ("evmcs", HyperVFacts("GenuineIntel"), "kvm_intel.nested is off"),
        ("avic", INTEL, "AVIC"),
        ("time", dataclasses.replace(INTEL, offered=frozenset()), "this kernel's KVM does not have it"),
    ],
)
def test_what_this_host_cannot_give_is_refused(hyperv: str, known: HyperVFacts, reason: str):
    with pytest.raises(PlanError) as error:
        _words(hyperv, known)
    assert "cpu.hyperv" in str(error.value) and reason in str(error.value)


def test_without_kvm_a_list_is_refused_and_the_systems_own_is_left_out_loudly():
    with pytest.raises(PlanError, match="machine runs under tcg"):
        plan(load_spec({"cpu": {"hyperv": "time"}}), facts(DEBIAN, TCG))
    made = plan(load_spec({"os": "windows-10", "memory": "2G"}), facts(DEBIAN, TCG))
    assert any("no Hyper-V enlightenments under tcg" in note.text for note in made.notes)


def test_bits_are_those_of_qemu():
    """QEMU's own masks for a few (target/i386/kvm/hyperv-proto.h)."""
    leaves = {0x40000003: (0x2E7F, 0, 0, 0x80010), 0x40000004: (0x4C2C, 0, 0, 0), 0x4000000A: (0x80000, 0, 0, 0)}
    assert offered(leaves) >= {
        "time",
        "synic",
        "stimer",
        "stimer-direct",
        "vapic",
        "tlbflush",
        "ipi",
        "evmcs",
        "emsr-bitmap",
    }
    assert not offered(leaves) & {"crash", "tlbflush-ext", "tlbflush-direct"}
    assert offered({}) == frozenset()


def test_a_recorded_host(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\n")
    parameters = tmp_path / "sys/module/kvm_amd/parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text("1\n")
    (parameters / "avic").write_text("Y\n")
    assert probe_hyperv(Rooted(str(tmp_path))) == HyperVFacts("AuthenticAMD", nested=True, apic=True)


def test_this_host_is_asked(tmp_path: Path):
    """A kernel that says nothing, or no device: nothing is made up."""
    assert hyperv_leaves(str(tmp_path / "nosuch")) is None
    assert hyperv_leaves("/dev/null") is None
    found = probe_hyperv(Rooted())
    assert found.offered is None or found.offered <= frozenset(BITS)
