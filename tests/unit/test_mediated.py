"""Devices made of parts of a card (mdev): made, removed, lent to machines, against files that do what a kernel's do."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_trees import Tree
from made_facts import TINY, facts
from made_hosts import GPU, _add, _link, dev

from tinamou.blueprint import TakePart, TakePciGroup
from tinamou.errors import PlanError, PrepareError, SpecError
from tinamou.launch.argv import argv
from tinamou.machine.passthrough import create_mdev, remove_mdev
from tinamou.planner import plan
from tinamou.prepare.apply import apply, undo
from tinamou.prepare.journal import Journal
from tinamou.probe.pci import probe_pci
from tinamou.spec import load_spec
from tinamou.state import ledger
from tinamou.system.rooted import Rooted

CARD, KIND = "0000:01:00.0", "nvidia-471"
_TYPES = f"/sys/bus/pci/devices/{CARD}/mdev_supported_types"


class Kernel(Rooted):
    """A card of two parts."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.tree = Tree(root)
        _add(self.tree, dev("00/00:01.0/01:00.0", GPU, 14, 1, mdev=KIND))
        self.tree.write(f"{_TYPES}/{KIND}/available_instances", "2")

    def write(self, path: str, text: str) -> None:
        free = self.integer(f"{_TYPES}/{KIND}/available_instances") or 0
        if path.endswith("/create"):
            if not free:
                raise OSError(errno.ENOSPC, "No space left on device")
            place = f"/sys/devices/pci0000:00/0000:00:01.0/{CARD}/{text}"
            _link(self.tree, f"{place}/iommu_group", f"/sys/kernel/iommu_groups/{30 - free}")
            _link(self.tree, f"{place}/mdev_type", f"{_TYPES}/{KIND}")
            _link(self.tree, f"/sys/bus/mdev/devices/{text}", place)
            free -= 1
        else:
            assert path.endswith("/remove")
            Path(self.path(path)).parent.unlink()
            free += 1
        self.tree.write(f"{_TYPES}/{KIND}/available_instances", str(free))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield Kernel(tmp_path.resolve())


def planned(kernel: Kernel, *pci: object, leased: dict[str, str] | None = None, root: bool = True):  # type: ignore[no-untyped-def]
    known = dataclasses.replace(facts(TINY), pci=probe_pci(kernel, leased or {}))
    known = dataclasses.replace(known, host=dataclasses.replace(known.host, is_root=root))
    return plan(load_spec({"pci": list(pci)}), known)


def refused(kernel: Kernel, *pci: object, **more: object) -> str:
    with pytest.raises(PlanError) as caught:
        planned(kernel, *pci, **more)
    assert all(one.fix for one in caught.value.problems)
    return "\n".join(map(str, caught.value.problems))


def test_they_are_made_and_removed(kernel: Kernel) -> None:
    first, second = create_mdev("01:00.0", KIND, kernel), create_mdev(CARD, KIND, kernel)
    found = probe_pci(kernel, {})
    assert {one.uuid for one in found.parts} == {first, second}
    assert {(str(one.card), one.type, one.group) for one in found.parts} == {(CARD, KIND, 28), (CARD, KIND, 29)}
    assert found.devices[0].mediated[0].free == 0
    with pytest.raises(PrepareError) as caught:
        create_mdev(CARD, KIND, kernel)
    assert "no more" in str(caught.value.problems[0])
    remove_mdev(first, kernel)
    remove_mdev(second, kernel)
    assert ledger.look().empty
    with pytest.raises(PrepareError, match="not made by tinamou"):
        remove_mdev(first, kernel)


def test_a_kind_it_does_not_make_is_refused_with_those_it_makes(kernel: Kernel) -> None:
    with pytest.raises(PrepareError) as caught:
        create_mdev(CARD, "nvidia-1", kernel)
    assert "nvidia-471 (GRID A100-10C)" in str(caught.value.problems[0])


def test_what_the_driver_refuses_is_not_held(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kernel, "write", full)
    with pytest.raises(PrepareError, match="does not make"):
        create_mdev(CARD, KIND, kernel)
    assert ledger.look().empty


def test_a_machine_has_the_first_free_one(kernel: Kernel) -> None:
    first, second = sorted([create_mdev(CARD, KIND, kernel), create_mdev(CARD, KIND, kernel)])
    made = planned(kernel, "mdev of 01:00.0")
    (card,) = (one.props for one in made.elements if one.props.get("driver") == "vfio-pci")
    assert card["sysfsdev"] == f"/sys/bus/mdev/devices/{first}"
    assert "host" not in card
    assert any("sysfsdev" in word for word in argv(made))
    (step,) = (one for one in made.steps if isinstance(one, TakePart))
    assert (step.part, step.owner) == (first, 1_900_000_000)
    assert not [one for one in made.steps if isinstance(one, TakePciGroup)], "the card stays the host's"
    assert f"/dev/vfio/{step.group}" in made.confinement.devices
    both = planned(kernel, "mdev of 01:00.0", "mdev of 01:00.0")
    assert {one.part for one in both.steps if isinstance(one, TakePart)} == {first, second}
    other = planned(kernel, "mdev of 01:00.0", leased={first: "train"})
    assert {one.part for one in other.steps if isinstance(one, TakePart)} == {second}
    assert "is leased to train" in refused(kernel, "mdev of 01:00.0", leased={first: "train", second: "web"})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("mdev of 01:00.0", "pci create-mdev 0000:01:00.0 nvidia-471"),
        ("mdev of 09:00.0", "no device and no interface 09:00.0"),
        ("mdev of 00:01.0", "makes no devices of parts"),
    ],
)
def test_where_there_is_none(kernel: Kernel, asked: str, said: str) -> None:
    _add(kernel.tree, dev("00/00:01.0", ("0604", "8086:347a", "pcieport"), 3))
    assert said in refused(kernel, asked)


def test_what_goes_with_a_whole_card_alone_is_refused_by_name(kernel: Kernel) -> None:
    create_mdev(CARD, KIND, kernel)
    asked = {"device": "mdev of 01:00.0", "alone": True, "region": "1G", "together": True, "mac": "52:54:00:00:00:01"}
    said = refused(kernel, asked)
    for name in ("alone", "region", "together", "mac"):
        assert f"pci[0].{name}" in said
    assert "only root" in refused(kernel, "mdev of 01:00.0", root=False)
    with pytest.raises(SpecError):
        load_spec({"pci": ["mdev of"]})


def test_one_is_lent_and_given_back(kernel: Kernel, tmp_path: Path) -> None:
    uuid = create_mdev(CARD, KIND, kernel)
    steps = [one for one in planned(kernel, "mdev of 01:00.0").steps if isinstance(one, TakePart)]
    machine, other = tmp_path / "train", tmp_path / "web"
    for folder in (machine, other):
        folder.mkdir()
    apply(steps, machine)
    assert ledger.look().parts[uuid].machine == str(machine)
    assert str(machine) in ledger.look().holders()
    with pytest.raises(PrepareError, match="train has"):
        remove_mdev(uuid, kernel)
    with pytest.raises(PrepareError, match="leased to train"):
        apply(steps, other)
    for entry in Journal(machine).open_entries().values():
        undo(entry)
    assert ledger.look().parts[uuid].machine == ""
    remove_mdev(uuid, kernel)
    assert ledger.look().empty


def test_one_that_somebody_else_made_is_lent_and_left(kernel: Kernel, tmp_path: Path) -> None:
    uuid = "9a3f0d5e-0000-4000-8000-000000000001"
    kernel.write(f"{_TYPES}/{KIND}/create", uuid)
    steps = [one for one in planned(kernel, "mdev of 01:00.0").steps if isinstance(one, TakePart)]
    apply(steps, tmp_path)
    with pytest.raises(PrepareError, match="not made by tinamou"):
        remove_mdev(uuid, kernel)
    for entry in Journal(tmp_path).open_entries().values():
        undo(entry)
    assert ledger.look().empty
