"""Which guests must stand still while their memory is sent: those an old QEMU emulates, and no other."""

from __future__ import annotations

import pytest

from tinamou.facts.qemu import loses_writes


@pytest.mark.parametrize("version", [(6, 2, 0), (7, 2, 22), (9, 2, 4)])
def test_an_old_emulation_loses_writes(version: tuple[int, int, int]) -> None:
    assert "the emulation of QEMU {}.{}.{} loses writes".format(*version) in loses_writes(version, "tcg")


@pytest.mark.parametrize(
    ("version", "accel"),
    [((7, 2, 22), "kvm"), ((7, 2, 22), "hvf"), ((10, 0, 0), "tcg"), ((10, 0, 13), "tcg"), ((11, 1, 3), "tcg")],
)
def test_others_go_while_they_run(version: tuple[int, int, int], accel: str) -> None:
    assert loses_writes(version, accel) == ""
