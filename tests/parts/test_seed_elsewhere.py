"""A seed that cloud-init would read from somewhere else: refused beside the disc, and where its address cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from made_facts import DEBIAN, TCG, facts

from tinamou.errors import PlanError
from tinamou.planner import plan
from tinamou.spec import load_spec

URL = "http://10.0.2.2:8000/"


def refused(description: dict[str, Any]) -> list[str]:
    """The fields a plan is refused for."""
    try:
        plan(load_spec({"image": "debian", **description}), facts(DEBIAN, TCG))
    except PlanError as error:
        return [problem.path for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("field", "description"),
    [
        ("smbios.serial", {"smbios": {"serial": f"ds=nocloud;s={URL}"}}),
        ("smbios.serial", {"smbios": {"serial": f"ds=nocloud-net;h=web;seedfrom={URL}"}}),
        ("qemu_args[1]", {"qemu_args": ["-smbios", f"type=1,serial=ds=nocloud;s={URL}"]}),
    ],
)
def test_two_seeds_are_not_mixed(field: str, description: dict[str, Any]) -> None:
    assert refused(description) == [field]
    assert refused({**description, "seed": {"agent": "none"}}) == []
    assert refused({**description, "seed": {"agent": "none", "hostname": "web"}}) == [field]


def test_an_address_that_no_file_can_follow() -> None:
    description = {"seed": {"agent": "none"}, "smbios": {"serial": f"ds=nocloud;s={URL.removesuffix('/')}"}}
    assert refused(description) == ["smbios.serial"]


def test_other_serial_numbers_are_nobodys_business() -> None:
    assert refused({"smbios": {"serial": "ds=ec2;s=x"}}) == []
    assert refused({"smbios": {"serial": "ds=nocloud"}}) == []
