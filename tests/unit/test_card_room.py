"""What cards need beside a place: room above 4 GiB, regions of another size, peers behind a switch, boot code of a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from host_trees import Tree
from made_facts import DEBIAN, OVMF, TINY, facts
from made_hosts import GPU, NVSWITCH, _add, dev

from tinamou.blueprint import HandOver, Note, Plan, TakePciGroup
from tinamou.errors import PlanError, PrepareError, SpecError
from tinamou.facts.pci import PciFacts
from tinamou.launch.handover import with_descriptors
from tinamou.planner import plan
from tinamou.prepare import passthrough as lending
from tinamou.prepare.journal import Journal
from tinamou.probe.pci import probe_pci
from tinamou.spec import load_spec
from tinamou.state import ledger
from tinamou.system import pci as system_pci
from tinamou.system.rooted import Rooted

CARD = "0000:01:00.0"
LARGE = dev("00/00:01.0/01:00.0", GPU, 14, window=1, resource1_resize="0000000000001f00", reset_method="flr bus")


def probed(root: Path, *devices: dict[str, Any], **files: str) -> PciFacts:
    tree = Tree(root)
    for one in devices:
        _add(tree, one)
    for path, text in files.items():
        tree.write("/" + path.replace("__", "/"), text)
    return probe_pci(Rooted(str(root)), {})


def planned(found: PciFacts, *pci: Any, **spec: Any) -> Plan:
    known = dataclasses.replace(facts(TINY), pci=found)
    known = dataclasses.replace(known, host=dataclasses.replace(known.host, is_root=True))
    return plan(load_spec({"pci": list(pci), **spec}), known)


def refused(found: PciFacts, *pci: Any, **spec: Any) -> list[str]:
    with pytest.raises(PlanError) as caught:
        planned(found, *pci, **spec)
    assert all(problem.fix for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def cards(made: Plan) -> list[Any]:
    return [one.props for one in made.elements if one.props.get("driver") == "vfio-pci"]


def texts(made: Plan) -> list[str]:
    return [note.text for note in made.notes if isinstance(note, Note)]


def test_a_region_has_another_size_while_the_machine_has_the_card(tmp_path: Path) -> None:
    found = probed(tmp_path, LARGE)
    [step] = [one for one in planned(found, {"device": CARD, "region": "4G"}).steps if isinstance(one, TakePciGroup)]
    assert step.regions == ((CARD, 1, 4 << 30),)
    assert any("has 1G and can have 256M, 512M, 1G, 2G, 4G" in one for one in texts(planned(found, CARD)))
    (said,) = refused(found, {"device": CARD, "region": "8G"})
    assert said.startswith("pci[0].region")
    assert "can have 256M, 512M, 1G, 2G, 4G" in said
    plain = probed(tmp_path / "other", dev("00/00:01.0/01:00.0", GPU, 14, window=1))
    assert "no region of another size" in refused(plain, {"device": CARD, "region": "4G"})[0]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rooted:
    """A card whose driver must have let go of it before its region is resized, as sysfs has it."""
    root = tmp_path.resolve()

    class Kernel(Rooted):
        def write(self, path: str, text: str) -> None:
            link = Path(self.path(f"/sys/bus/pci/devices/{CARD}/driver"))
            if path.endswith("/unbind"):
                link.unlink()
            elif path.endswith("/drivers_probe"):
                name = self.read(f"/sys/bus/pci/devices/{CARD}/driver_override") or "nvidia"
                link.symlink_to(f"../../../drivers/{name}")
            elif path.endswith("_resize"):
                if link.is_symlink():
                    raise OSError(16, "Device or resource busy")
                end = (1 << 42) + (1 << 20 + int(text)) - 1
                super().write(path.replace("resource1_resize", "resource"), f"0x0 0x0 0x0\n0x{1 << 42:x} 0x{end:x} 0x14220c")
            else:
                super().write(path, text)

    probed(root, LARGE, **{"sys__bus__pci__drivers_probe": "", "sys__module__vfio_iommu_type1__refcnt": "1"})
    for name in ("vfio-pci", "nvidia"):
        (root / f"sys/bus/pci/drivers/{name}").mkdir(parents=True, exist_ok=True)
    (root / f"sys/bus/pci/devices/{CARD}").resolve().joinpath("driver_override").write_text("")
    files = Kernel(str(root))
    monkeypatch.setattr(system_pci, "_KERNEL", files)
    return files


def test_it_is_resized_with_no_driver_on_it_and_given_back_as_it_was(kernel: Rooted, tmp_path: Path) -> None:
    step = TakePciGroup(14, (CARD,), None, None, ((CARD, 1, 4 << 30),))  # type: ignore[arg-type]
    machine = tmp_path / "m"
    machine.mkdir()
    lending.take_group(step, Journal(machine))
    assert system_pci.driver(CARD) == "vfio-pci"
    assert system_pci.region_size(CARD, 1) == 4 << 30
    assert ledger.look().devices[CARD].region == f"1 {1 << 30}"
    lending.give_devices(str(machine))
    assert system_pci.region_size(CARD, 1) == 1 << 30
    assert system_pci.driver(CARD) == "nvidia"
    assert ledger.look().empty


def test_it_is_reset_in_the_way_that_is_asked_for_and_given_back(kernel: Rooted, tmp_path: Path) -> None:
    found = probed(tmp_path / "other", LARGE)
    [step] = [one for one in planned(found, {"device": CARD, "reset": "bus"}).steps if isinstance(one, TakePciGroup)]
    assert step.resets == ((CARD, "bus"),)
    assert any("reset by its bus alone" in one for one in texts(planned(found, {"device": CARD, "reset": "bus"})))
    assert not any("by its bus" in one for one in texts(planned(found, CARD)))
    (said,) = refused(found, {"device": CARD, "reset": "pm"})
    assert said.startswith("pci[0].reset") and f"{CARD} flr, bus" in said
    machine = tmp_path / "m"
    machine.mkdir()
    for somebody in ("", "device_specific"):
        lending.take_group(step, Journal(machine))
        assert system_pci.resets(CARD) == "bus"
        if somebody:
            system_pci.reset_by(CARD, somebody)
        lending.give_devices(str(machine))
        assert system_pci.resets(CARD) == (somebody or "flr bus")
        assert ("someone else" in " ".join(ledger.look().reports)) == bool(somebody)


def test_a_size_the_kernel_refuses_is_an_error(kernel: Rooted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system_pci, "resize", full)
    machine = tmp_path / "m"
    machine.mkdir()
    with pytest.raises(PrepareError, match="cannot have 4096 MiB"):
        lending.take_group(TakePciGroup(14, (CARD,), None, None, ((CARD, 1, 4 << 30),)), Journal(machine))  # type: ignore[arg-type]


def test_regions_beyond_the_processors_addresses_are_refused(tmp_path: Path) -> None:
    huge = dev("00/00:01.0/01:00.0", GPU, 14, window=128)
    wide = {"proc__cpuinfo": "address sizes\t: 46 bits physical, 48 bits virtual"}
    narrow = {"proc__cpuinfo": "address sizes\t: 39 bits physical, 48 bits virtual"}
    assert cards(planned(probed(tmp_path / "wide", huge, **wide), CARD))
    (said,) = refused(probed(tmp_path / "narrow", huge, **narrow), CARD)
    assert "39 bits" in said
    assert cards(planned(probed(tmp_path / "unsaid", huge), CARD)), "nothing is known"


def test_a_larger_region_gets_more_room_of_the_firmware(tmp_path: Path) -> None:
    card = dev("00/00:01.0/01:00.0", GPU, 14, window=1, resource1_resize="000000000001ff00")
    found = dataclasses.replace(facts(DEBIAN), pci=probed(tmp_path, card), firmware=(OVMF,))
    made = plan(load_spec({"pci": [{"device": CARD, "region": "64G"}], "boot": {"firmware": "uefi"}}), found)
    assert [flag.options["string"] for flag in made.flags if "X-PciMmio64Mb" in str(flag.options.get("name"))] == ["131072"]


def switched(count: int = 4) -> list[dict[str, Any]]:
    """Two GPUs behind each of two switches."""
    return [
        dev(f"20/20:00.0/2{1 + 4 * (n // 2)}:00.0/2{2 + 4 * (n // 2)}:0{n % 2}.0/2{3 + n}:00.0", GPU, 40 + n)
        for n in range(count)
    ]


def test_together_means_behind_one_switch(tmp_path: Path) -> None:
    found = probed(tmp_path, *switched())
    one, two, three, _ = (str(one.address) for one in found.devices if one.kind == "graphics")
    made = planned(found, *({"device": each, "together": True} for each in (one, two)))
    assert [card["x-nv-gpudirect-clique"] for card in cards(made)] == [0, 0]
    assert "x-nv-gpudirect-clique" not in cards(planned(found, one, two))[0]
    (said,) = refused(found, {"device": one, "together": True}, {"device": three, "together": True})
    assert said.startswith("pci[1].together")
    assert "another switch" in said
    kind = {"device": "10de:20b0", "together": True}
    assert "pci[2].together" in refused(found, kind, kind, kind)[0]
    assert len(cards(planned(found, kind, kind))) == 2


def test_a_switch_between_gpus_is_no_bridge_of_the_board(tmp_path: Path) -> None:
    found = probed(tmp_path, dev("20/20:01.0/30:00.0", NVSWITCH, 50))
    assert [card["host"] for card in cards(planned(found, "30:00.0"))] == ["0000:30:00.0"]


def test_a_divided_card_is_not_given_away(tmp_path: Path) -> None:
    files = {f"proc__driver__nvidia__capabilities__gpu0__mig__gi{n}__access": "DeviceFileMinor: 1" for n in (1, 2)}
    minor = {f"proc__driver__nvidia__gpus__{CARD}__information": "Model: A100\nDevice Minor: 0"}
    found = probed(tmp_path, LARGE, **files, **minor)
    (said,) = refused(found, CARD)
    assert "2 GPU instances (MIG" in said


def test_groups_that_are_pretended_are_called_so(tmp_path: Path) -> None:
    found = probed(tmp_path, LARGE, proc__cmdline="quiet pcie_acs_override=downstream,multifunction")
    assert any("pcie_acs_override=downstream" in one and "past the IOMMU" in one for one in texts(planned(found, CARD)))
    assert not any("pretended" in one for one in texts(planned(probed(tmp_path / "real", LARGE), CARD)))


def test_what_a_reset_of_the_bus_hits_is_named(tmp_path: Path) -> None:
    both = [dev(f"00/00:01.0/01:00.{n}", GPU, 14, reset_method="bus") for n in (0, 1)]
    assert any("0000:01:00.0 is reset by its bus alone" in one and "(0000:01:00.1)" in one
               for one in texts(planned(probed(tmp_path, *both), CARD)))  # fmt: skip


def test_a_processors_own_graphics_brings_its_tables(tmp_path: Path) -> None:
    graphics = ("0300", "8086:3e92", "i915")
    (card,) = cards(planned(probed(tmp_path, dev("00/00:02.0", graphics, 1)), "00:02.0"))
    assert card["x-igd-opregion"] is True
    (other,) = cards(planned(probed(tmp_path / "other", dev("00/00:01.0/03:00.0", graphics, 1)), "03:00.0"))
    assert "x-igd-opregion" not in other


def test_boot_code_of_a_file_is_handed_over_open(tmp_path: Path) -> None:
    found = probed(tmp_path, LARGE)
    made = planned(found, {"device": CARD, "rom_file": "/srv/card.rom"})
    assert [step.access for step in made.steps if isinstance(step, HandOver) and step.path == "/srv/card.rom"] == ["read"]
    assert cards(with_descriptors(made, {"/srv/card.rom": 9}))[0]["romfile"] == "/dev/fd/9"
    with pytest.raises(SpecError, match="rom_file"):
        load_spec({"pci": [{"device": CARD, "rom": False, "rom_file": "/srv/card.rom"}]})


def test_devices_say_their_bus_beside_another_root_complex() -> None:
    """QEMU puts a device that names no bus behind the newest root complex."""
    by_hand = ["-device", "pxb-pcie,id=far,bus=pcie.0,addr=0x1a,bus_nr=128"]
    made = plan(load_spec({"qemu_args": by_hand}), facts(TINY))
    assert {one.props.get("bus") for one in made.elements if one.kind == "device" and "addr" in one.props} == {"pcie.0"}
    plain = plan(load_spec({"qemu_args": ["-device", "edu"]}), facts(TINY))
    assert not any("bus" in one.props for one in plain.elements if "addr" in one.props)
