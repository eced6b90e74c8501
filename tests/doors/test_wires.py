"""Cards on wires of the host, through every door that leads to a machine of its own: nothing there can be twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs import Lab
from looking import as_described
from switched import SWITCHED
from switches import Switch
from ways import ALONE
from wires import WIRES, lay

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "door", [name if name == "run -d, start" else pytest.param(name, marks=pytest.mark.slow) for name in ALONE]
)
def test_wires(door: str, lab: Lab, tmp_path: Path, leftovers) -> None:
    lay(lab)
    as_described(WIRES, ALONE[door], tmp_path, leftovers, prefix=("ip", "netns", "exec", lab.name))


@pytest.mark.slow
@pytest.mark.parametrize("door", ALONE)
def test_a_switch(door: str, lab: Lab, switch: Switch, tmp_path: Path, leftovers) -> None:
    as_described(SWITCHED, ALONE[door], tmp_path, leftovers, prefix=("ip", "netns", "exec", lab.name))
    assert switch.ports() == []
