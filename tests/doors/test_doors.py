"""Every field of a description, through every door: in effect, as guest, QEMU and host show it, or refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hardware import HARDWARE
from looking import differences
from ways import DOORS

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(600)]


@pytest.mark.parametrize("door", DOORS)
def test_hardware(door: str, tmp_path: Path, leftovers) -> None:
    assert differences(HARDWARE, DOORS[door], tmp_path) == {}
    assert leftovers.found() == []
