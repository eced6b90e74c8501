"""QEMU, which is not root, gets the one group that opens /dev/kvm, or a plan says why it cannot."""

import os

import pytest
from host_trees import make_host

from tinamou.errors import PlanError
from tinamou.facts.host import EVERYBODY
from tinamou.planner import _group_of
from tinamou.probe.host import probe_host


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        ({"device_groups": {"/dev/kvm": 104}}, 104),
        ({"device_groups": {"/dev/kvm": EVERYBODY}}, EVERYBODY),
        ({"groups": {"kvm": 36}}, 36),
        ({}, EVERYBODY),
    ],
)
def test_group(facts, group):
    assert _group_of("/dev/kvm", make_host(**facts)) == group


def test_only_the_owner_may():
    with pytest.raises(PlanError, match="only its owner"):
        _group_of("/dev/kvm", make_host(device_groups={"/dev/kvm": None}))


@pytest.mark.parametrize(("device", "without"), [("/dev/kvm", True), ("/dev/sev", False)])
def test_what_to_do_about_it(device, without):
    """There is a way without KVM, but none without the device of the secure processor."""
    with pytest.raises(PlanError) as error:
        _group_of(device, make_host(device_groups={device: None}))
    assert f"chmod 666 {device}" in error.value.fix
    assert ("--accel tcg" in error.value.fix) is without


@pytest.mark.parametrize(("mode", "group"), [(0o666, EVERYBODY), (0o660, os.getgid()), (0o600, None)])
def test_read_from_the_device(tmp_path, mode, group):
    device = tmp_path / "dev/kvm"
    device.parent.mkdir()
    device.touch()
    device.chmod(mode)
    assert probe_host(str(tmp_path)).device_groups == {"/dev/kvm": group}
