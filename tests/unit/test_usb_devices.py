"""USB devices of the host: found, chosen or refused by name, kept for one machine, offered to the host's drivers again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from host_trees import Tree
from made_facts import TCG, TINY, facts

from tinamou.blueprint import HandOver, TakeUsbDevice, Why
from tinamou.errors import PlanError, PrepareError, SpecError
from tinamou.facts.usb import UsbDevice, UsbFacts
from tinamou.machine.elsewhere import recorded
from tinamou.planner import plan
from tinamou.prepare.apply import apply as do_steps
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.prepare.usb import give_device
from tinamou.probe.usb import probe_usb
from tinamou.spec import load_spec
from tinamou.state import ledger
from tinamou.system.rooted import Rooted

BUS = "/sys/bus/usb/devices"


@pytest.fixture
def host(tmp_path: Path) -> Tree:
    """A hub with two sticks of one kind in it, of which one is mounted, and a key beside it."""
    tree = Tree(tmp_path / "host")
    plug(tree, "1-2", 2, "05e3", "0608", code="09", name=("Genesys", "Hub"))
    plug(tree, "1-2.10", 11, "0951", "1666", name=("Kingston", "DataTraveler\x1b[31m"))
    plug(tree, "1-2.9", 10, "0951", "1666")
    plug(tree, "1-3", 12, "1050", "0407", name=("Yubico", "YubiKey"))
    for port in ("1-2.9", "1-2.10"):
        tree.write(f"{BUS}/{port}:1.0/bInterfaceClass", "08")
    (tree.root / f"{BUS}/usb1".lstrip("/")).mkdir()
    block = tree.root / f"{BUS}/1-2.9/1-2.9:1.0/block/sdx".lstrip("/")
    block.mkdir(parents=True)
    (block / "dev").write_text("8:16\n")
    (tree.root / "sys/class/block").mkdir(parents=True)
    (tree.root / "sys/class/block/sdx").symlink_to(block)
    tree.write("/proc/self/mountinfo", "30 1 8:16 / /mnt rw - ext4 /dev/sdx rw")
    return tree


def plug(tree: Tree, port: str, number: int, vendor: str, product: str, *, code="00", name=()) -> None:
    said = {"busnum": 1, "devnum": number, "idVendor": vendor, "idProduct": product, "bDeviceClass": code}
    for file, value in {**said, **dict(zip(("manufacturer", "product"), name, strict=False))}.items():
        tree.write(f"{BUS}/{port}/{file}", value)


def on(tree: Tree):
    return recorded(facts(TINY, TCG), str(tree.root))


def devices(made) -> list[str]:
    return [str(one.props["hostdevice"]) for one in made.elements if one.props.get("driver") == "usb-host"]


def test_devices_are_found_with_what_the_host_does_with_them(host):
    found = probe_usb(Rooted(str(host.root)), {}).devices
    assert [one.port for one in found] == ["1-2", "1-2.9", "1-2.10", "1-3"]
    assert [one.is_hub for one in found] == [True, False, False, False]
    assert [one.uses for one in found] == [(), ("disk sdx holds /mnt",), (), ()]
    assert str(found[2]) == "1-2.10 0951:1666 Kingston DataTraveler[31m"
    assert found[3].node == "/dev/bus/usb/001/012"


def test_one_is_chosen_by_its_kind_or_its_port(host):
    asked = ["tablet", {"type": "host", "device": "0951:1666"}, {"type": "host", "device": "1-3"}]
    made = plan(load_spec({"usb": asked}), on(host))
    assert devices(made) == ["/dev/bus/usb/001/011", "/dev/bus/usb/001/012"]  # the one that is not mounted
    assert [one.port for one in made.steps if isinstance(one, TakeUsbDevice)] == ["1-2.10", "1-3"]
    handed = [one for one in made.steps if isinstance(one, HandOver) and one.path.startswith("/dev/bus/usb")]
    assert [(one.path, one.access) for one in handed] == [(path, "write") for path in devices(made)]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("dead:beef", "no such device is plugged in; there are: 1-2.9 0951:1666, 1-2.10 0951:1666 Kingston"),
        ("1-2.9", "the host uses 1-2.9 0951:1666: disk sdx holds /mnt"),
        ("1-2", "is a hub, which stays the host's"),
    ],
)
def test_what_cannot_be_given_is_refused(host, device, words):
    with pytest.raises(PlanError) as refused:
        plan(load_spec({"usb": [{"type": "host", "device": device}]}), on(host))
    assert words in str(refused.value)


def test_what_another_machine_has_or_only_root_opens_is_refused(host):
    known = on(host)
    key = next(one for one in known.usb.devices if one.port == "1-3")
    asked = load_spec({"usb": [{"type": "host", "device": "1050:0407"}, {"type": "host", "device": "1050:0407"}]})
    leased = dataclasses.replace(known, usb=UsbFacts((dataclasses.replace(key, opens=False),), {"1-3": "other"}))
    with pytest.raises(PlanError) as refused:
        plan(asked, leased)
    for words in ("other has 1-3", "only root may open /dev/bus/usb/001/012", 'ATTR{idVendor}=="1050"', "no more of these"):
        assert words in str(refused.value)
    with pytest.raises(PlanError, match="a fork would have the same device"):
        plan(load_spec({"usb": [{"type": "host", "device": "1-3"}], "memory": {"forkable": True}}), known)


@pytest.mark.parametrize(
    "one", [{"type": "host"}, {"type": "tablet", "device": "1-3"}, {"type": "host", "device": "yubikey"}]
)
def test_a_device_is_named_where_it_is_the_hosts(one):
    with pytest.raises(SpecError, match=r"usb\[0\].device"):
        load_spec({"usb": [one]})


def test_it_is_kept_for_one_machine_and_given_back(host, state):
    step = TakeUsbDevice("1-2.9", Why("test", "it is asked for"))
    folders = [state / "machines" / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
    first = Journal(folders[0])
    do_steps([step], folders[0])
    assert ledger.look().usb == {"1-2.9": str(folders[0])}
    with pytest.raises(PrepareError, match="leased to one a moment ago"):
        do_steps([step], folders[1])
    assert ledger.look().usb == {"1-2.9": str(folders[0])}  # the refused one gave nothing back that is not its own
    host.write("/sys/bus/usb/drivers_probe", "")
    [entry] = first.open_entries().values()
    give_device(entry, Rooted(str(host.root)))
    assert (host.root / "sys/bus/usb/drivers_probe").read_text().strip() == "1-2.9:1.0"
    first.give_back(undo)
    assert ledger.look().usb == {} and not first.open_entries()


def test_a_function_that_has_a_driver_is_left_alone(host, state):
    host.write(f"{BUS}/1-2.9:1.0/driver/name", "usb-storage")
    host.write("/sys/bus/usb/drivers_probe", "")
    with ledger.edit() as held:
        held.usb["1-2.9"] = "m"
    give_device({"port": "1-2.9", "machine": "m"}, Rooted(str(host.root)))
    assert (host.root / "sys/bus/usb/drivers_probe").read_text().strip() == ""
    assert ledger.look().usb == {}


def test_devices_say_what_they_are():
    assert str(UsbDevice("1-1", "0951", "1666")) == "1-1 0951:1666"
