"""How a saved state is handed to the QEMU that loads it, by what the binary says of itself."""

from __future__ import annotations

import pytest
import recorded
from made_facts import facts

from tinamou.planner import plan
from tinamou.snapshots.state_file import loading, loads
from tinamou.spec import load_spec


@pytest.mark.parametrize("version", recorded.VERSIONS)
def test_a_state_is_handed_over_as_the_binary_takes_it(version, monkeypatch):
    monkeypatch.setattr("tinamou.snapshots.state_file.probe_qemu", lambda _: recorded.qemu(version, "x86_64"))
    made = plan(load_spec({}), facts())
    given = [dict(flag.options) for flag in loads(made, 7).flags if flag.name == "add-fd"]
    if version == "7.2":
        assert (given, loading(made, 7)) == ([], [("migrate-incoming", {"uri": "fd:7"})])
    else:
        (number,) = (one["set"] for one in given if one["fd"] == 7)
        assert loading(made, 7) == [
            ("migrate-incoming", {"uri": f"file:/dev/fdset/{number}"}),
            ("remove-fd", {"fdset-id": number}),
        ]
