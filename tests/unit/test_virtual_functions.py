"""Virtual functions switched on and off by hand, against files that do what a kernel's do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_trees import Tree
from made_facts import TCG, TINY, facts
from made_hosts import NIC, VF, _add, build, dev

from tinamou.blueprint import SetVirtualFunction, TakePciGroup, Why
from tinamou.errors import PlanError, PrepareError, SpecError
from tinamou.machine.elsewhere import recorded
from tinamou.machine.passthrough import create_vfs, remove_vfs
from tinamou.planner import plan
from tinamou.prepare import passthrough as lending
from tinamou.prepare.apply import apply as do_steps
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.spec import load_spec
from tinamou.state import ledger
from tinamou.state.ledger import Device
from tinamou.system import iproute
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
    assert kernel.read(f"{_PLACE}/sriov_drivers_autoprobe") == "0", "a driver that is loaded now does not get them either"
    with pytest.raises(PrepareError, match="already"):
        create_vfs("05:00.0", 2, kernel)
    assert remove_vfs("05:00.0", kernel) == 3
    assert kernel.integer(f"{_PLACE}/sriov_numvfs") == 0
    assert kernel.read(f"{_PLACE}/sriov_drivers_autoprobe") == "1", "as it was"
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


class Ip:
    """What ``ip`` says of a card's virtual functions, in its own form (iproute2 6.1), and does to them."""

    def __init__(self) -> None:
        self.one: dict[str, object] = {"vf": 1, "link_type": "ether", "address": "00:00:00:00:00:00", "vlan_list": [{}]}
        self.one |= {"spoofchk": True, "link-state": "auto", "trust": False, "query_rss_en": False}
        self.said: list[str] = []

    def links(self, *_: str) -> list[dict[str, object]]:
        return [{"ifname": "eth2", "vfinfo_list": [{"vf": 0, "address": "00:00:00:00:00:09"}, self.one]}]

    def batch(self, lines: list[str]) -> None:
        self.said += lines
        for line in lines:
            words = line.split()[6:]
            values = dict(zip(words[::2], words[1::2], strict=True))
            self.one |= {"address": values.get("mac", self.one["address"])}
            self.one |= {"vlan_list": [{"vlan": int(values["vlan"])}]} if "vlan" in values else {}
            self.one |= {"rate": {"max_tx": int(values["max_tx_rate"]), "min_tx": 0}} if "max_tx_rate" in values else {}
            self.one |= {key: values[key] == "on" for key in ("spoofchk", "trust") if key in values}


@pytest.fixture
def ip(monkeypatch: pytest.MonkeyPatch) -> Ip:
    found = Ip()
    for name in ("links", "batch"):
        monkeypatch.setattr(iproute, name, getattr(found, name))
    monkeypatch.setattr(iproute, "exists", lambda name: name == "eth2")
    return found


ASKED = (("mac", "52:54:00:00:00:07"), ("vlan", "12"), ("trust", "on"), ("spoofchk", "off"), ("max_tx_rate", "100"))


def test_a_card_sets_them_and_sets_them_back(ip: Ip, tmp_path: Path) -> None:
    before, journal = dict(ip.one), Journal(tmp_path)
    step = SetVirtualFunction("eth2", 1, ASKED, Why("test", "x"))
    do_steps([step], tmp_path)
    assert ip.said == ["link set dev eth2 vf 1 mac 52:54:00:00:00:07 vlan 12 trust on spoofchk off max_tx_rate 100"]
    assert ip.one["vlan_list"] == [{"vlan": 12}]
    assert journal.give_back(undo) == []
    assert ip.one.pop("rate") == {"max_tx": 0, "min_tx": 0}
    assert {**ip.one, "vlan_list": [{}]} == before
    assert ip.one["vlan_list"] == [{"vlan": 0}]


def test_what_someone_else_set_meanwhile_stays(ip: Ip, tmp_path: Path) -> None:
    do_steps([SetVirtualFunction("eth2", 1, ASKED, Why("test", "x"))], tmp_path)
    ip.one |= {"address": "52:54:00:00:00:99"}
    Journal(tmp_path).give_back(undo)
    assert (ip.one["address"], ip.one["trust"], ip.one["spoofchk"]) == ("52:54:00:00:00:99", False, True)


def test_a_function_that_is_not_there_is_named(ip: Ip, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="cannot set its virtual function 3") as refused:
        do_steps([SetVirtualFunction("eth2", 3, ASKED, Why("test", "x"))], tmp_path)
    assert "no virtual function 3" in str(refused.value.why)
    assert ip.said == []


def _planned(root: Path, **asked: object) -> tuple[object, ...]:
    known = recorded(facts(TINY, TCG), str(root))
    return plan(load_spec({"pci": [asked]}), known).steps


def test_they_are_asked_for_in_the_machine_file(tmp_path: Path) -> None:
    root = build(tmp_path.resolve(), "virtual-functions")
    asked = {"mac": "52:54:00:00:00:0A", "vlan": 7, "trust": True, "spoof_check": False, "rate": "100Mbit"}
    steps = [
        one for one in _planned(root, device="vf of eth2", **asked) if isinstance(one, SetVirtualFunction | TakePciGroup)
    ]
    assert isinstance(steps[0], SetVirtualFunction), "before the guest has it"
    assert (steps[0].interface, steps[0].index) == ("eth2", 0)
    assert dict(steps[0].settings) == {
        **{"mac": "52:54:00:00:00:0a", "vlan": "7", "trust": "on", "spoofchk": "off", "max_tx_rate": "100"}
    }
    assert not [one for one in _planned(root, device="vf of eth2") if isinstance(one, SetVirtualFunction)]
    for field, value in asked.items():
        with pytest.raises(PlanError) as refused:
            _planned(build(tmp_path / field, "workstation"), device="01:00.0", **{field: value})
        assert [problem.path for problem in refused.value.problems] == [f"pci[0].{field}"]
    with pytest.raises(SpecError, match=r"pci\[0\]"):
        load_spec({"pci": [{"device": "vf of eth2", "vlan": 4095}]})
    with pytest.raises(SpecError, match=r"pci\[0\]"):
        load_spec({"pci": [{"device": "vf of eth2", "mac": "52:54:00"}]})
