"""Virtual functions switched on and off by hand, against files that do what a kernel's do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_trees import Tree
from made_hosts import NIC, VF, _add, dev

from tinamou.errors import PrepareError
from tinamou.machine.passthrough import create_vfs, remove_vfs
from tinamou.prepare import passthrough as lending
from tinamou.state import ledger
from tinamou.state.ledger import Device
from tinamou.system.rooted import Rooted

CARD = "0000:05:00.0"
_PLACE = f"/sys/bus/pci/devices/{CARD}"


class Kernel(Rooted):
    """A card with room for four: it takes a number only where it had none, and offers each to drivers unless told not to."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.tree = Tree(root)
        self.offered: list[str] = []
        _add(self.tree, dev("00/05:00.0", NIC, 10, net="eth2", sriov_totalvfs="4", sriov_numvfs="0"))
        self.tree.write(f"{_PLACE}/sriov_drivers_autoprobe", "1")
        self.full = False

    def write(self, path: str, text: str) -> None:
        if path.endswith("sriov_numvfs"):
            if self.full:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            if int(text) and self.integer(path):
                raise OSError(errno.EBUSY, "Device or resource busy")
            for number in range(int(text)):
                _add(self.tree, dev(f"00/05:00.{number + 1}", VF, 11 + number, vf=("05:00.0", number)))
                self.offered += [f"{number}"] if self.read(f"{_PLACE}/sriov_drivers_autoprobe") == "1" else []
        super().write(path, text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Kernel(tmp_path.resolve())  # type: ignore[return-value]


def test_they_come_and_go_and_nobody_else_gets_them(kernel: Kernel) -> None:
    made = create_vfs("eth2", 3, kernel)
    assert [one.index for one in made] == [0, 1, 2]
    assert ledger.look().vfs[CARD].left == 3
    assert not kernel.offered
    assert kernel.read(f"{_PLACE}/sriov_drivers_autoprobe") == "1", "as it was"
    with pytest.raises(PrepareError, match="already"):
        create_vfs("05:00.0", 2, kernel)
    assert remove_vfs("05:00.0", kernel) == 3
    assert kernel.integer(f"{_PLACE}/sriov_numvfs") == 0
    assert ledger.look().empty


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_the_card_has_not(kernel: Kernel, count: int) -> None:
    with pytest.raises(PrepareError) as refused:
        create_vfs("eth2", count, kernel)
    assert "1 to 4" in str(refused.value.problems[0])
    assert ledger.look().empty


def test_a_card_without_room_says_so_and_nothing_is_held(kernel: Kernel) -> None:
    kernel.full = True
    with pytest.raises(PrepareError, match="does not make") as refused:
        create_vfs("eth2", 4, kernel)
    assert "allocate" in str(refused.value.why)
    assert ledger.look().empty
    assert kernel.read(f"{_PLACE}/sriov_drivers_autoprobe") == "1"


@pytest.mark.parametrize(("machine", "said"), [("/m/train", "train has it"), ("", "taken by hand")])
def test_not_while_somebody_has_one(kernel: Kernel, machine: str, said: str) -> None:
    create_vfs("eth2", 2, kernel)
    with ledger.edit() as held:
        held.devices["0000:05:00.2"] = Device("", machine=machine, by_hand=not machine)
    with pytest.raises(PrepareError) as refused:
        remove_vfs("eth2", kernel)
    assert said in str(refused.value.problems[0])
    assert kernel.integer(f"{_PLACE}/sriov_numvfs") == 2


def test_what_others_changed_is_left_alone(kernel: Kernel) -> None:
    create_vfs("eth2", 2, kernel)
    kernel.tree.write(f"{_PLACE}/sriov_numvfs", 4)
    with pytest.raises(PrepareError) as refused:
        remove_vfs("eth2", kernel)
    assert "someone else changed it" in str(refused.value.why)
    assert kernel.integer(f"{_PLACE}/sriov_numvfs") == 4
    with pytest.raises(PrepareError, match="by tinamou"):
        remove_vfs("eth2", kernel)


def test_only_root_and_only_with_the_cards_own_driver(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (kernel.tree.root / f"{_PLACE[1:]}/driver").unlink()
    with pytest.raises(PrepareError) as refused:
        create_vfs("eth2", 1, kernel)
    said = " ".join(map(str, refused.value.problems))
    assert "only root" in said
    assert "its driver is none" in said
    with pytest.raises(PrepareError, match="no device and no interface eth9"):
        create_vfs("eth9", 1, kernel)


def test_an_older_ledger_is_read(kernel: Kernel) -> None:
    lending.give_devices("/m/none")
    assert ledger.look().vfs == {}
