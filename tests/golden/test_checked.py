"""What is only checked is refused with the words of its plan, and taken where there is one."""

from __future__ import annotations

import dataclasses

import cases
import confidential_cases
import pytest
from made_facts import KVM_WORKS, TCG, TINY, facts

from tinamou.errors import PlanError
from tinamou.facts import Facts
from tinamou.facts.host import EVERYBODY
from tinamou.planner import check, plan
from tinamou.spec import MachineSpec, load_spec


def refusal(decide, spec: MachineSpec, known: Facts) -> str:
    """What is said against it, with its problems; empty where nothing is."""
    try:
        decide(spec, known)
    except PlanError as error:
        return f"{error} {error.problems}"
    return ""


OWN = ("/dev/kvm", "/dev/sev", "/dev/vfio/vfio", *(f"/dev/vfio/{number}" for number in range(64)))
"""What QEMU opens by itself."""


def closed(known: Facts, *devices: str) -> Facts:
    """The same, on a host on which only root may open these, and everybody the others."""
    groups = dict.fromkeys(OWN, EVERYBODY) | dict.fromkeys(devices)
    return dataclasses.replace(known, host=dataclasses.replace(known.host, device_groups=groups))


@pytest.mark.parametrize("case", [*cases.CASES, *confidential_cases.CASES], ids=str)
def test_as_the_plan(case):
    module = cases if isinstance(case, cases.Case) else confidential_cases
    spec, known = module.spec_of(case), module.facts(case, module.image_of(case), confidential_cases.PLACE)
    for one in (known, closed(known, *OWN), closed(known, *OWN[1:])):
        assert refusal(check, spec, one) == refusal(plan, spec, one)


@pytest.mark.parametrize(
    ("description", "known", "said"),
    [
        ({"replicate": {"to": "north", "every": "5m"}}, facts(TINY, TCG), "it has no disk"),
        ({"memory": "4T"}, closed(facts(TINY, KVM_WORKS), *OWN), "has not enough memory"),
        ({}, closed(facts(TINY, KVM_WORKS), *OWN), "QEMU may not use /dev/kvm"),
        ({"firmware": "uefi"}, closed(facts(TINY, KVM_WORKS), *OWN), "cannot start this way"),
        ({}, closed(facts(TINY, TCG), *OWN), ""),
        ({}, closed(facts(TINY, KVM_WORKS, uid=None), *OWN), ""),
    ],
)
def test_what_stands_in_the_way_first_is_told_by_both(description, known, said):
    spec = load_spec(description)
    found = refusal(check, spec, known)
    assert found == refusal(plan, spec, known)
    assert said in found and bool(said) == bool(found)
