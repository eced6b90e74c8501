"""Inside the lab: virtual functions of a network card and a disk controller, made, given to two guests, and given back."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from typed import call, eventually, tinamou

from tinamou.probe.host import probe_host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3000)]

CARD, VIRTUAL, STORE = "8086:10c9", "8086:10ca", "1b36:0010"
KERNEL = ("--kernel", "/boot/lab/vmlinux", "--initrd", "/boot/lab/initrd", "--cmdline", "quiet cryptomgr.notests")
"""The lab's own: the tiny guest's has no driver of the card."""
NEWER = "/var/cache/tinamou/qemu10/bin/qemu-system-{arch}"
DISK = "until [ -b /dev/nvme0n1 ]; do sleep 0.2; done; cat /sys/block/nvme0n1/size"
MACS = {"first": "52:54:00:00:00:0a", "second": "52:54:00:00:00:0b"}


def listed(ids):
    return [row for row in json.loads(tinamou("pci", "ls", "--json")) if row["ids"] == ids]


def driver(address):
    link = Path(f"/sys/bus/pci/devices/{address}/driver")
    return link.resolve().name if link.exists() else ""


def told(interface):
    """What the card has for each of its virtual functions, by number."""
    (link,) = json.loads(subprocess.run(["ip", "-json", "link", "show", interface], capture_output=True, check=True).stdout)
    return {one["vf"]: one for one in link["vfinfo_list"]}


def start(name, pci, *more, qemu=""):
    tables = ("{" + ",".join(f"{key}={json.dumps(value)}" for key, value in one.items()) + "}" for one in pci)
    described = f"pci=[{','.join(tables)}]"
    words = ("--name", name, "-d", "--accel", "kvm", "--timeout", "900", "--net", "none", *KERNEL, "--set", described, *more)
    done = call("run", *words, **({"TINAMOU_QEMU": qemu} if qemu else {}))
    assert done.returncode == 0, done.stderr
    return json.loads(tinamou("show", name, "--json"))


def answers(name):
    """Wait for a guest: under emulation its start takes minutes, and a command waits for five of them."""
    assert any(call("exec", name, "--", "true").returncode == 0 for _ in range(4)), tinamou("logs", name)


def inside(name, text, check=True):
    done = call("exec", name, "--", "sh", "-c", text)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout if check else done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def home():
    """The guests outlast a test, and so does where they are known."""
    place = Path("/tmp/tm-sriov")
    place.mkdir(mode=0o755, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TINAMOU_STATE", "TINAMOU_RUN"):
            patch.setenv(name, str(place))
        yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(autouse=True)
def at_home(state, home, monkeypatch):
    """Not where the other tests have theirs (``state``), which is one for each test."""
    assert state != home
    for name in ("TINAMOU_STATE", "TINAMOU_RUN"):
        monkeypatch.setenv(name, str(home))


@pytest.fixture(scope="module")
def cards(home):
    """The network card's interface and the disk controller, each with two virtual functions; they are gone afterwards."""
    assert home.exists()
    (card,) = listed(CARD)
    store = next(row for row in listed(STORE) if row["virtual_functions"][1])
    (interface,) = card["interfaces"]
    subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    for one in (interface, store["address"]):
        tinamou("pci", "create-vfs", one, "2")
    yield interface, store["address"]
    for one in (interface, store["address"]):
        tinamou("pci", "remove-vfs", one)
    assert listed(VIRTUAL) == []


@pytest.fixture(scope="module")
def machines(cards):
    """Two guests, each with a virtual function of both; they see two memory nodes."""
    interface, store = cards
    shown = {}
    near, far = (sorted(node.cpus) for node in probe_host().nodes if node.cpus)
    for number, (name, mac) in enumerate(MACS.items()):
        pci = [{"device": f"vf of {interface}", "mac": mac}, {"device": f"vf of {store}"}]
        shown[name] = start(name, pci, "--memory", "256M", "--cpus", "2", "--pin", f"{near[number]},{far[number]}")
    for name in MACS:
        answers(name)
    yield shown
    for name in MACS:
        call("rm", "-f", name)


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def rooms(cards):
    """The virtual functions with the host's own driver, each in a network namespace: how to speak to each, by name."""
    subprocess.run(["modprobe", "-a", "igbvf", "macvlan"], check=True)
    made = {}
    for number, row in enumerate(listed(VIRTUAL)):
        place = Path(f"/sys/bus/pci/devices/{row['address']}")
        ip("link", "set", cards[0], "vf", str(number), "mac", list(MACS.values())[number])
        (place / "driver_override").write_text("igbvf")
        Path("/sys/bus/pci/drivers_probe").write_text(row["address"])
        eventually(lambda place=place: list(place.glob("net/*")), "its interface")
        name = next(place.glob("net/*")).name
        ip("netns", "add", f"room{number}")
        ip("link", "set", name, "netns", f"room{number}")
        ip("-n", f"room{number}", "address", "add", f"10.4.0.{number + 1}/24", "dev", name)
        ip("-n", f"room{number}", "link", "set", name, "up")
        made[f"room{number}"] = name
    yield made
    for number, row in enumerate(listed(VIRTUAL)):
        place = Path(f"/sys/bus/pci/devices/{row['address']}")
        (place / "driver/unbind").write_text(row["address"])
        (place / "driver_override").write_text("\n")
        ip("netns", "del", f"room{number}")
        ip("link", "set", cards[0], "vf", str(number), "mac", "00:00:00:00:00:00", "vlan", "0")


def answered(room, address, *more):
    words = ["ip", "netns", "exec", room, "busybox", "ping", "-c", "1", "-W", "5", *more, address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_qemus_card_checks_nothing_and_keeps_vlans_apart(cards, rooms):
    """A card that drops what comes from another address is not at hand: QEMU's igb says that it checks, and lets
    such a frame pass (11.1). What it is told of VLANs it does."""
    assert told(cards[0])[0]["spoofchk"] is True
    eventually(lambda: answered("room0", "10.4.0.2"), "the way through the card")
    ip("-n", "room0", "link", "add", "fake", "link", rooms["room0"], "address", "52:54:00:00:00:66", "type", "macvlan")
    ip("-n", "room0", "address", "add", "10.4.0.66/24", "dev", "fake")
    ip("-n", "room0", "link", "set", "fake", "up")
    answered("room0", "10.4.0.2", "-I", "fake")
    eventually(lambda: "52:54:00:00:00:66" in ip("-n", "room1", "neighbour"), "the frame from another address")
    ip("-n", "room0", "link", "del", "fake")
    ip("link", "set", cards[0], "vf", "0", "vlan", "12")
    assert not answered("room0", "10.4.0.2")
    ip("link", "set", cards[0], "vf", "0", "vlan", "0")


def test_no_driver_of_the_host_has_them(cards):
    made = listed(VIRTUAL)
    assert [(row["driver"], row["of"]) for row in made] == [("", listed(CARD)[0]["address"])] * 2
    assert all(row["node"] == 1 for row in made)


def test_each_guest_has_one_with_the_address_its_card_gave_it(cards, machines):
    for number, (name, mac) in enumerate(MACS.items()):
        inside(name, f"until ip link show eth0 | grep -q {mac}; do sleep 0.2; done")
        assert told(cards[0])[number]["address"] == mac, machines[name]["name"]


def test_they_reach_each_other_through_the_card(machines):
    assert set(machines) == set(MACS)
    for number, name in enumerate(MACS):
        inside(name, f"ip address add 10.3.0.{number + 1}/24 dev eth0; ip link set eth0 up")
    said = inside("first", "ping -c 3 -W 60 10.3.0.2")
    assert "3 packets received" in said or " 0% packet loss" in said, said


def test_another_address_is_refused_by_the_card(cards, machines):
    assert set(machines) == set(MACS)
    assert told(cards[0])[0]["spoofchk"] is True
    change = f"ip link set eth0 down; ip link set eth0 address {MACS['second']}; ip link set eth0 up"
    said = inside("first", change, check=False)
    assert "annot assign" in said or "not available" in said or "not permitted" in said, said
    assert told(cards[0])[0]["address"] == MACS["first"]


def test_each_guest_has_a_disk_of_the_controller(machines):
    for name in machines:
        size = inside(name, f"{DISK}; dd if=/dev/nvme0n1 bs=64k of=/dev/null 2>&1")
        assert size.startswith("131072\n"), size
        assert "1024+0 records in" in size


def test_the_guest_reads_where_they_are(machines):
    """Behind a root complex of the guest's memory node that lies where the device does."""
    for name in machines:
        nodes = inside(name, "for d in /sys/bus/pci/devices/*; do echo $(cat $d/vendor $d/device $d/numa_node); done")
        assert f"0x8086 0x{VIRTUAL[5:]} 1" in nodes, nodes
        assert f"0x{STORE[:4]} 0x{STORE[5:]} 1" in nodes, nodes


def test_pci_check_finds_them_as_they_should_be(machines):
    for name in machines:
        done = call("pci", "check", name, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        about = {(one["device"], one["about"]) for one in json.loads(done.stdout)}
        assert len({device for device, _ in about}) == 2
        assert {"driver", "regions", "interrupts", "memory node"} <= {what for _, what in about}


def test_after_a_kill_everything_is_as_it_was(cards, machines):
    pid = machines["first"]["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of QEMU")
    tinamou("ls")
    assert told(cards[0])[0]["address"] == "00:00:00:00:00:00"
    rows = [*listed(VIRTUAL), *(row for row in listed(STORE) if row["of"])]
    assert sorted(row["state"] for row in rows) == ["free", "free", "leased to second", "leased to second"]
    assert {driver(row["address"]) for row in rows if row["free"]} == {""}
    refused = call("pci", "remove-vfs", cards[0])
    assert refused.returncode == 113
    assert "second has it" in refused.stderr
    tinamou("rm", "-f", "first")
    tinamou("rm", "-f", "second")
    assert told(cards[0])[1]["address"] == "00:00:00:00:00:00"


def test_what_its_card_does_for_one_is_set_and_set_back(cards):
    asked = {"vlan": 12, "trust": True, "spoof_check": False, "rate": "100Mbit"}
    before = told(cards[0])[0]
    shown = start("fourth", [{"device": f"vf of {cards[0]}", **asked}], "--memory", "128M")
    try:
        now = told(cards[0])[0]
        assert now["vlan_list"][0]["vlan"] == 12, now
        assert (now["trust"], now["spoofchk"]) == (True, False), now
        assert now["rate"]["max_tx"] == 100, now
        os.kill(shown["pid"], signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{shown['pid']}").exists(), "the end of QEMU")
        tinamou("ls")
        assert told(cards[0])[0] == before
    finally:
        call("rm", "-f", "fourth")


def test_a_device_is_handed_over_open(cards):
    """IOMMUFD: QEMU is handed the device and the IOMMU, and opens nothing in /dev/vfio."""
    shown = start("third", [{"device": f"vf of {cards[1]}"}], "--memory", "256M", "--set", "devices.iommufd=on", qemu=NEWER)
    try:
        answers("third")
        held = [str(one.readlink()) for one in Path(f"/proc/{shown['pid']}/fd").iterdir()]
        assert "/dev/iommu" in held, held
        assert [one for one in held if re.fullmatch(r"/dev/vfio/devices/vfio\d+", one)], held
        assert not [one for one in held if one == "/dev/vfio/vfio" or re.fullmatch(r"/dev/vfio/\d+", one)], held
        groups = [Path(f"/dev/vfio/{row['group']}") for row in listed(STORE) if row["of"] and not row["free"]]
        assert [path.stat().st_uid for path in groups] == [0], "its user may not open it"
        assert inside("third", DISK).strip() == "131072"
        os.kill(shown["pid"], signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{shown['pid']}").exists(), "the end of QEMU")
        tinamou("ls")
        assert all(row["free"] for row in listed(STORE) if row["of"])
    finally:
        call("rm", "-f", "third")
