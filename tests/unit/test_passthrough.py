"""Devices of the host: what is found out about them, which a request stands for, and what keeps them from a guest."""

import dataclasses
import os
from pathlib import Path

import made_facts
import pytest
from host_trees import Tree, make_host
from made_facts import DEBIAN, OVMF, TINY, facts

from tinamou.blueprint import HandOver, TakePciGroup
from tinamou.blueprint.stored import plain, plan_from
from tinamou.errors import PlanError, SpecError
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.launch.argv import argv, spelled
from tinamou.launch.handover import with_descriptors
from tinamou.planner import plan
from tinamou.probe.pci import probe_pci
from tinamou.spec import load_spec
from tinamou.system.rooted import Rooted
from tinamou.units import PciAddress, Size

V100 = "10de:1db4"


def device(address, ids="8086:10d3", code="0200", **more):
    vendor, number = ids.split(":")
    return PciDevice(PciAddress.parse(address), vendor, number, code, **{"group": 1, "driver": "e1000e", **more})


def card(bus, group, **more):
    """A V100-like card with the sound function no V100 has, as consumer cards do."""
    gpu = device(f"{bus}:00.0", V100, "0302", driver="nvidia", group=group, window=Size.parse("32G"), node=1, **more)
    return gpu, device(f"{bus}:00.1", "10de:10ef", "0403", driver="snd_hda_intel", group=group, node=1)


GPUS = PciFacts((*card("65", 20), *card("b3", 21), device("00:1f.0", code="0601", group=9, driver="lpc_ich")))


def planned(pci, found=GPUS, image=TINY, root=True, **spec):
    known = dataclasses.replace(facts(image), pci=found)
    known = dataclasses.replace(known, host=dataclasses.replace(known.host, is_root=root))
    return plan(load_spec({"pci": pci, **spec}), known)


def refused(pci, found=GPUS, **more):
    with pytest.raises(PlanError) as caught:
        planned(pci, found, **more)
    assert all(problem.fix for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def assigned(made):
    return [element.props for element in made.elements if element.props.get("driver") == "vfio-pci"]


def groups(made):
    return {step.group: step.devices for step in made.steps if isinstance(step, TakePciGroup)}


def test_a_card_with_all_its_functions_behind_a_port_of_its_own():
    made = planned(["65:00.0"])
    one, other = assigned(made)
    assert (one["host"], one["bus"], one["addr"], one["multifunction"]) == ("0000:65:00.0", "pci0-port", "0x0.0x0", True)
    assert (other["host"], other["bus"], other["addr"]) == ("0000:65:00.1", "pci0-port", "0x0.0x1")
    assert "multifunction" not in other
    assert groups(made) == {20: ("0000:65:00.0", "0000:65:00.1")}
    assert all(why.reason and why.asked_by for _, why in spelled(made))
    assert any(element.props.get("id") == "pci0-port" for element in made.elements)


def test_the_first_free_card_of_a_kind():
    taken = dataclasses.replace(GPUS, leased={"0000:65:00.0": "train"})
    assert [props["host"] for props in assigned(planned([V100], taken))] == ["0000:b3:00.0", "0000:b3:00.1"]
    two = assigned(planned([V100.upper(), V100]))
    assert [props["host"][5:7] for props in two] == ["65", "65", "b3", "b3"]
    assert {props["bus"] for props in two} == {"pci0-port", "pci1-port"}
    (said,) = refused([V100, V100], taken)
    assert "0000:65:00.0 is leased to train" in said
    assert "0000:b3:00.0 is given to this machine already" in said


def test_one_function_alone_without_its_boot_code():
    alone = PciFacts((device("65:00.0", group=20), device("65:00.1", group=20, driver="")))
    (only,) = assigned(planned([{"device": "65:00.0", "alone": True, "rom": False}], alone))
    assert (only["host"], only["rombar"]) == ("0000:65:00.0", 0)
    assert "multifunction" not in only


def test_virtual_functions_are_cards_of_their_own():
    physical = device("65:00.0", driver="igb", group=30, uses=("2 virtual functions are switched on",))
    virtual = [device(f"65:00.{n}", "8086:10ca", driver="igbvf", group=30 + n, virtual=True) for n in (1, 2)]
    found = PciFacts((physical, *virtual))
    assert groups(planned(["65:00.2"], found)) == {32: ("0000:65:00.2",)}
    (said,) = refused(["65:00.0"], found)
    assert "2 virtual functions are switched on" in said


def test_what_keeps_a_device_from_a_guest_is_said_all_at_once():
    found = PciFacts(
        (
            device("01:00.0", group=1, uses=("network interface eth0 is up",)),
            device("02:00.0", group=2),
            device("02:01.0", group=2, driver="nvme"),
            device("03:00.0", group=None),
            device("04:00.0", group=4, code="0604"),
            device("05:00.0", group=5),
        ),
        leased={"0000:05:00.0": "web"},
    )
    every = ["01:00.0", "02:00.0", "03:00.0", "04:00.0", "05:00.0", "06:00.0", "1234:5678"]
    said = refused(every, found)
    for number, words in enumerate(
        ("network interface eth0 is up", "0000:02:01.0", "no IOMMU", "a bridge", "web has it", "no such device", "this kind")
    ):
        assert any(one.startswith(f"pci[{number}]") and words in one for one in said), (number, said)
    assert "tinamou pci take 0000:02:01.0" in next(one for one in said if one.startswith("pci[1]"))
    assert any("named twice" in one for one in refused(["02:00.0", "02:00.0", "02:01.0"], found))
    assert groups(planned(["02:00.0", "02:01.0"], found)) == {2: ("0000:02:00.0", "0000:02:01.0")}


def test_a_host_without_an_iommu():
    (said,) = refused(["65:00.0"], PciFacts((device("65:00.0", group=None),), missing="no IOMMU is on"))
    assert "no IOMMU is on" in said


def test_a_user_needs_a_device_that_was_opened_for_him_and_memory_he_may_lock():
    ready = PciFacts((device("65:00.0", driver="vfio-pci", group=20),), open_groups=frozenset({20}), locked=2 << 30)
    assert len(assigned(planned(["65:00.0"], ready, root=False, memory="1G"))) == 1
    said = refused(["65:00.0"], ready, root=False, memory="2G")
    assert "2048 MiB of guest memory + 1024 MiB" in said[0]
    assert "may lock 2048 MiB" in said[0]
    assert "may lock 2048 MiB" in refused(["65:00.0"], ready, memory="2G")[0], "root of a container may not raise it either"
    unlimited = dataclasses.replace(ready, locked=None)
    assert planned(["65:00.0"], unlimited, memory="2G").confinement.locked == 3 << 30
    closed = dataclasses.replace(ready, open_groups=frozenset())
    assert "tinamou pci take --user $USER 0000:65:00.0" in refused(["65:00.0"], closed, root=False)[0]


def test_no_fork_of_a_machine_with_a_real_device():
    (said,) = refused(["65:00.0"], forkable=True)
    assert said.startswith("memory.forkable")
    outside = plain(planned(["65:00.0"]))["outside"]
    assert "pci" in [one.partition(" ")[0] for one in outside]


def test_locked_memory_is_not_given_back_page_by_page():
    def reports(made):
        return next(e.props for e in made.elements if e.id == "balloon0")["free-page-reporting"]

    assert reports(planned([])) is True
    assert reports(planned(["65:00.0"])) is False
    assert planned([]).confinement.locked is None
    made = planned(["65:00.0"])
    assert plan_from(plain(made)).confinement == made.confinement
    alone = plan(load_spec({"pci": ["65:00.0"]}), dataclasses.replace(facts(uid=None), pci=GPUS)).confinement
    assert (alone.uid, alone.locked) == (None, made.confinement.locked)


def test_vfio_is_opened_through_its_group():
    known = facts()
    known = dataclasses.replace(known, host=dataclasses.replace(known.host, device_groups={"/dev/vfio/vfio": 106}), pci=GPUS)
    assert plan(load_spec({"pci": ["65:00.0"]}), known).confinement.groups == (106,)
    assert plan(load_spec({}), known).confinement.groups == ()


def test_the_machine_sits_beside_its_device():
    host = make_host(nodes=2)
    known = dataclasses.replace(facts(), pci=GPUS, host=host)
    made = plan(load_spec({"pci": ["65:00.0"], "cpu": {"count": 2, "pin": "auto"}}), known)
    assert made.pinning is not None
    assert {host.cpus[next(iter(cpus))].node for cpus in made.pinning.vcpus} == {1}


def test_firmware_is_told_of_large_memory_regions():
    line = argv(planned(["65:00.0"], image=DEBIAN, boot={"firmware": "uefi"}))
    assert line[line.index("-fw_cfg") + 1] == "name=opt/ovmf/X-PciMmio64Mb,string=65536"
    assert "-fw_cfg" not in argv(planned(["65:00.0"], image=DEBIAN, boot={"firmware": "bios"}))
    small = PciFacts((device("65:00.0", window=Size.parse("256M")),))
    assert "-fw_cfg" not in argv(planned(["65:00.0"], small, image=DEBIAN, boot={"firmware": "uefi"}))
    assert OVMF in facts(DEBIAN).firmware


def test_a_card_that_cannot_be_reset_is_said_to_be():
    made = planned(["65:00.0"], PciFacts((device("65:00.0", resets=False),)))
    assert any("0000:65:00.0 cannot be reset alone" in note.text for note in made.notes)


@pytest.mark.parametrize("wrong", ["65:00", "gpu", "65:00.9", "10de:1db4:1", ""])
def test_wrong_words(wrong):
    with pytest.raises(SpecError, match=r"pci\[0\]\.device"):
        load_spec({"pci": [wrong]})


class Bus:
    """Writes a /sys with PCI functions, as links and folders lie in a real one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def link(self, path: str, target: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(os.path.relpath(self.root / target.lstrip("/"), file.parent))

    def add(self, address, code, driver, group, **files):
        real = f"/sys/devices/pci0000:00/{address}"
        for name, text in {"vendor": "0x10de", "device": "0x1db4", "class": code, "numa_node": "1", **files}.items():
            self.write(f"{real}/{name}", text)
        (self.root / f"sys/kernel/iommu_groups/{group}").mkdir(parents=True, exist_ok=True)
        (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
        self.link(f"{real}/driver", f"/sys/bus/pci/drivers/{driver}")
        self.link(f"{real}/iommu_group", f"/sys/kernel/iommu_groups/{group}")
        self.link(f"/sys/bus/pci/devices/{address}", real)
        return real


def test_read_from_sysfs(tmp_path):
    bus = Bus(tmp_path)
    regions = "0x1000000 0x1ffffff 0x40200\n0x6000000000 0x67ffffffff 0x14220c\n0x0 0x0 0x0\n"
    gpu = bus.add("0000:65:00.0", "0x030200", "nvidia", 20, resource=regions, reset_method="flr bus")
    disk = bus.add("0000:02:00.0", "0x010802", "nvme", 3, resource="")
    nic = bus.add("0000:03:00.0", "0x020000", "igb", 4, resource="", sriov_numvfs="2", reset="")
    bus.add("0000:03:10.0", "0x020000", "igbvf", 5, resource="")
    bus.link("/sys/devices/pci0000:00/0000:03:10.0/physfn", nic)
    bus.write(f"{disk}/nvme/nvme0/nvme0n1/nvme0n1p1/dev", "259:1\n")
    bus.write(f"{disk}/nvme/nvme0/nvme0n1/nvme0n1p2/dev", "259:2\n")
    bus.write(f"{disk}/nvme/nvme0/nvme0n1/nvme0n1p2/holders/dm-0", "")
    bus.write(f"{disk}/nvme/nvme0/nvme0n1/nvme0n1p3/dev", "259:3\n")
    for number in (1, 2, 3):
        bus.link(f"/sys/class/block/nvme0n1p{number}", f"{disk}/nvme/nvme0/nvme0n1/nvme0n1p{number}")
    bus.write(f"{nic}/net/eth0/flags", "0x1003")
    bus.link("/sys/class/net/eth0", f"{nic}/net/eth0")
    bus.write(f"{gpu}/drm/card0/dev", "226:0")
    bus.link("/sys/class/drm/card0", f"{gpu}/drm/card0")
    bus.write("/proc/driver/nvidia/gpus/0000:65:00.0/information", "Model: V100\nDevice Minor: \t 0\n")
    bus.write("/proc/self/mountinfo", "22 1 259:1 / / rw - ext4 /dev/root rw\n")
    bus.write("/proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p3 partition 1 0 -2\n")
    bus.write("/proc/77/comm", "python3\n")
    bus.link("/proc/77/fd/3", "/dev/nvidia0")
    bus.link("/proc/77/fd/4", "/dev/dri/card0")

    found = {str(one.address): one for one in probe_pci(Rooted(str(tmp_path)), {}).devices}
    card, store, network, virtual = (found[f"0000:{place}"] for place in ("65:00.0", "02:00.0", "03:00.0", "03:10.0"))
    assert (card.ids, card.kind, card.driver, card.group, card.node) == (V100, "graphics", "nvidia", 20, 1)
    assert (card.window, card.resets) == (Size.parse("32G"), True)
    assert set(card.uses) == {"python3 (77) use card0", "python3 (77) use nvidia0"}
    assert set(store.uses) == {
        "disk nvme0n1p1 holds /", "disk nvme0n1p2 is part of dm-0", "disk nvme0n1p3 holds swap",
    }  # fmt: skip
    assert (store.resets, network.resets) == (False, True)
    assert set(network.uses) == {"2 virtual functions are switched on", "network interface eth0 is up"}
    assert (virtual.virtual, virtual.uses) == (True, ())


def test_a_device_that_waits_for_a_guest_is_used_by_nobody(tmp_path):
    bus = Bus(tmp_path)
    nic = bus.add("0000:03:00.0", "0x020000", "vfio-pci", 4, resource="")
    bus.write(f"{nic}/net/eth0/flags", "0x1003")
    bus.link("/sys/class/net/eth0", f"{nic}/net/eth0")
    (one,) = probe_pci(Rooted(str(tmp_path)), {}).devices
    assert one.uses == ()


ROUTES = "Iface Destination Gateway\neth1 00000000 010200C0\n"
ADDRESSES = "fe80000000000000505400fffe123456 03 40 20 80 eth0\n2001db8 04 40 00 80 eth2\n"
ROUTES_OF_6 = (
    f"fe8{'0' * 29} 40 {'0' * 32} 00 {'0' * 32} 100 1 0 1 eth0\nfd{'0' * 30} 40 {'0' * 32} 00 {'0' * 32} 1 1 0 1 eth3\n"
)
PACKETS = "sk RefCnt Type Proto Iface R\n0 3 2 0800 10 1\n0 3 3 0003 14 1\n0 3 3 0003 0 1\n"


def test_an_interface_is_used_when_somebody_works_with_it(tmp_path):
    """What manages networks takes every card up: that alone keeps none from a guest."""
    bus = Bus(tmp_path)
    for name, text in (("route", ROUTES), ("if_inet6", ADDRESSES), ("ipv6_route", ROUTES_OF_6), ("packet", PACKETS)):
        bus.write(f"/proc/self/net/{name}", text)
    for number in range(7):
        nic = bus.add(f"0000:03:00.{number}", "0x020000", "igb", number, resource="")
        bus.write(f"{nic}/net/eth{number}/flags", "0x1002" if number == 6 else "0x1003")
        bus.write(f"{nic}/net/eth{number}/ifindex", str(10 + number))
        bus.link(f"/sys/class/net/eth{number}", f"{nic}/net/eth{number}")
    bus.write("/sys/devices/pci0000:00/0000:03:00.5/net/eth5/upper_br0/flags", "0x1003")
    bus.write("/sys/devices/pci0000:00/0000:03:00.6/net/eth6/upper_br1/flags", "0x1002")
    found = [one.uses for one in probe_pci(Rooted(str(tmp_path)), {}).devices]
    said = ("", "has a route", "has an address", "has a route", "a program hears all it receives", "below br0", "")
    assert [bool(uses) for uses in found] == [bool(words) for words in said], found
    assert all(words in " ".join(uses) for words, uses in zip(said, found, strict=True)), found


class Here(Rooted):
    """Files of a folder, taken for this host's."""

    @property
    def real(self):
        return True


def test_a_card_whose_interface_is_elsewhere_is_used(tmp_path):
    """In another network namespace: this one does not see it."""
    bus = Bus(tmp_path)
    for number, (code, driver) in enumerate((("0x020000", "igb"), ("0x020000", ""), ("0x010802", "nvme"))):
        bus.add(f"0000:03:00.{number}", code, driver or "vfio-pci", number, resource="")
    used = [one.uses for one in probe_pci(Here(str(tmp_path)), {}).devices]
    assert [bool(uses) for uses in used] == [True, False, False]
    assert "namespace" in used[0][0]


def test_a_host_without_pci(tmp_path):
    assert probe_pci(Rooted(str(tmp_path)), {}).missing == "this host has no PCI devices"


LOADED = {"/sys/module/vfio/refcnt": "1"}
ONE_BY_ONE = dataclasses.replace(GPUS, one_by_one=True)


class Older(made_facts.EveryFeature):
    """A QEMU before 9.0."""

    def has(self, feature):
        return "iommufd" not in feature


def test_devices_are_handed_over_open_where_kernel_and_qemu_can():
    made = planned([V100], ONE_BY_ONE)
    folders = [f"/sys/bus/pci/devices/0000:65:00.{n}/vfio-dev" for n in (0, 1)]
    handed = {step.path: step.access for step in made.steps if isinstance(step, HandOver)}
    assert handed["/dev/iommu"] == "write"
    assert [handed[one] for one in folders] == ["device", "device"]
    assert not [one for one in made.confinement.devices if "vfio" in one], "it opens none by itself"
    assert [step.owner for step in made.steps if isinstance(step, TakePciGroup)] == [None]
    ready = with_descriptors(made, {"/dev/iommu": 7, folders[0]: 8, folders[1]: 9})
    iommu = next(one for one in ready.elements if one.props.get("qom-type") == "iommufd")
    assert iommu.props["fd"] == "7"
    assert [(one["fd"], one["iommufd"], "host" in one) for one in assigned(ready)] == [
        ("8", iommu.props["id"], False), ("9", iommu.props["id"], False)
    ]  # fmt: skip
    assert not [flag for flag in ready.flags if flag.name == "add-fd" and "vfio" in str(flag.options)]


def test_groups_where_they_cannot_be_handed_over(monkeypatch):
    assert "iommufd" not in assigned(planned([V100], ONE_BY_ONE, devices={"iommufd": "off"}))[0]
    assert "IOMMUFD" in refused([V100], devices={"iommufd": "on"})[0]
    assert "iommufd" not in assigned(planned([V100]))[0]
    monkeypatch.setattr(made_facts, "EveryFeature", Older)
    assert "iommufd" not in assigned(planned([V100], ONE_BY_ONE))[0]
    (said,) = refused([V100], ONE_BY_ONE, devices={"iommufd": "on"})
    assert said.startswith("devices.iommufd")
    assert "9.0" in said
    monkeypatch.undo()
    assert "no device of the host" in refused([], devices={"iommufd": "on"})[0]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"/sys/module/vfio/refcnt": "1", "/proc/devices": "Character devices:\n237 vfio-dev\n238 vfio"}, True),
        (
            {"/sys/module/vfio/refcnt": "1", "/proc/devices": "238 vfio", "/boot/config-6.1": "CONFIG_VFIO_DEVICE_CDEV=y"},
            False,
        ),
        ({"/boot/config-6.1": "CONFIG_IOMMUFD=m\nCONFIG_VFIO_DEVICE_CDEV=y"}, True),
        ({"/boot/config-6.1": "# CONFIG_VFIO_DEVICE_CDEV is not set"}, False),
        ({}, False),
    ],
    ids=["loaded", "loaded-without", "not-loaded-yet", "not-built", "unknown"],
)
def test_whether_the_kernel_hands_out_single_devices(tmp_path, files, found):
    tree = Tree(tmp_path)
    for path, text in {"/proc/sys/kernel/osrelease": "6.1", **files}.items():
        tree.write(path, text)
    assert probe_pci(Rooted(str(tmp_path)), {}).one_by_one is found
