"""Whether a guest has its balloon driver is read without harm on every QEMU, also while it has none."""

from __future__ import annotations

import json

import pytest
from typed import call

from tinamou import Machine

pytestmark = pytest.mark.vm


def told() -> tuple[bool, str]:
    """Whether the guest's own numbers are there, and what is said to be missing."""
    done = call("stats", "web", "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    return bool(row["memory"].get("guest")), str(row["missing"])


def test_a_guest_without_the_driver_is_looked_at_and_runs_on(every_qemu: str) -> None:
    """A module that the kernel is told not to load: its driver of the balloon."""
    with Machine(net=[], keep=True, name="web", boot={"cmdline": "module_blacklist=virtio_balloon"}) as machine:
        before = machine.record.process
        there, missing = told()
        assert not there and "no balloon driver" in missing
        assert call("watch", "--once", "web").returncode in (0, 1)
        assert machine.record.process == before and machine.run("echo on").text == "on"
    call("rm", "-f", "web")
