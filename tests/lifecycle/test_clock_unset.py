"""A guest's clock that nothing can set: it is named, beside a QEMU that computes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou.state import machines
from tinamou.state.record import change

pytestmark = pytest.mark.vm

REASONS: list[tuple[dict[str, object], str]] = [
    ({}, "no agent listens in its guest"),
    ({"agent": False}, "nothing is known of an agent in tiny"),
    ({"spec": {"qemu_args": ["-rtc", "base=2001-02-03"]}}, "its time is its own, by -rtc in qemu_args"),
    ({"spec": {"clock": {"base": "2020-01-01T00:00:00"}}}, "its time is its own, by clock.base"),
]


@pytest.mark.parametrize(("changed", "why"), REASONS)
def test_what_has_nothing_to_set_it_by_is_named(changed: dict[str, object], why: str, fake_qemu: Path) -> None:
    tinamou("run", "-d", "--no-wait", "--name", "mute", "--net", "none", "--set", "memory.size=192M")
    tinamou("pause", "mute")
    change(machines.find("mute"), **changed)
    done = call("resume", "mute", "--json")
    note = f"the clock of mute is behind by the time it stood still: {why}; set it in the guest"
    assert done.stderr == f"tinamou: {note}\n"
    assert json.loads(done.stdout) == {"name": "mute", "by": "", "within": 0.0, "why": why, "note": note}
    tinamou("rm", "-f", "mute")
