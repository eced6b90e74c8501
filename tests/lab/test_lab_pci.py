"""Inside the lab: real devices behind a real IOMMU, given to a guest under KVM and taken back, however it ends."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou.probe.qemu import find_binary

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

NETWORK, STORE = "8086:10d3", "1b36:0010"


def listed(ids):
    """Those of that kind; of controllers the two functions of one card, without the one with virtual functions."""
    rows = [row for row in json.loads(tinamou("pci", "ls", "--json")) if row["ids"] == ids]
    return [row for row in rows if ids != STORE or row["address"].startswith("0000:00:1b.")]


def driver(address):
    link = Path(f"/sys/bus/pci/devices/{address}/driver")
    return link.resolve().name if link.exists() else ""


@pytest.fixture
def inner():
    def start(*more):
        tinamou("run", "--name", "inner", "-d", "--accel", "kvm", "--memory", "256M", "--timeout", "500", *more)
        return json.loads(tinamou("show", "inner", "--json"))

    yield start
    call("rm", "-f", "inner")


IN_THE_GUEST = "cd /sys/bus/pci/devices; for d in *; do echo $(cat $d/vendor $d/device) $d; done"


def seen_by_the_guest(ids):
    vendor, device = ids.split(":")
    lines = tinamou("exec", "inner", "--", "sh", "-c", IN_THE_GUEST).splitlines()
    return [line.split()[2] for line in lines if line.startswith(f"0x{vendor} 0x{device} ")]


def gone(pid):
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.parametrize("end", ["removed", "killed"])
def test_a_device_is_lent_and_comes_back(inner, end):
    (row,) = listed(NETWORK)
    (interface,) = row["interfaces"]
    subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    subprocess.run(["ip", "address", "replace", "192.0.2.1/24", "dev", interface], check=True)
    used = call("run", "--pci", NETWORK, "--accel", "kvm", "--", "true")
    assert used.returncode == 112 and f"{interface} is up, and has a route" in used.stderr, used.stderr
    subprocess.run(["ip", "address", "del", "192.0.2.1/24", "dev", interface], check=True)
    (row,) = listed(NETWORK)
    before, address = driver(row["address"]), row["address"]
    assert row["free"], row
    shown = inner("--pci", NETWORK)
    assert len(seen_by_the_guest(NETWORK)) == 1
    assert driver(address) == "vfio-pci"
    group = Path(f"/dev/vfio/{row['group']}")
    status = Path(f"/proc/{shown['pid']}/status").read_text()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert group.stat().st_uid == int(uid) != 0
    limits = Path(f"/proc/{shown['pid']}/limits").read_text()
    locked = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max locked memory"))
    assert int(locked) == (256 << 20) + (1 << 30)
    assert address in tinamou("host")
    assert listed(NETWORK)[0]["state"] == "leased to inner"
    other = call("run", "--pci", address, "--accel", "kvm", "--", "true")
    assert other.returncode == 112
    assert "inner has it" in other.stderr
    again = call("checkpoint", "inner")
    assert again.returncode == 118
    assert "VFIO" in again.stderr
    if end == "killed":
        os.kill(shown["pid"], signal.SIGKILL)
        gone(shown["pid"])
        tinamou("ls")
    else:
        tinamou("rm", "-f", "inner")
    assert driver(address) == before
    assert not group.exists()
    assert listed(NETWORK)[0]["free"]


def test_a_card_goes_with_all_its_functions(inner):
    rows = listed(STORE)
    first, second = (row["address"] for row in rows)
    assert first.endswith(".0")
    assert second.endswith(".1")
    before = driver(first), driver(second)
    assert before == ("nvme", "nvme")
    inner("--pci", first)
    functions = seen_by_the_guest(STORE)
    assert [place[-1] for place in functions] == ["0", "1"]
    assert len({place[:-2] for place in functions}) == 1
    assert tinamou("exec", "inner", "--", "sh", "-c", "cat /sys/block/nvme?n1/size").split() == ["131072", "131072"]
    said = call("doctor", "--before-upgrade", find_binary("x86_64"), "--json")
    (predicted,) = json.loads(said.stdout)
    assert predicted["name"] == "inner" and not predicted["survives"] and predicted["why"], predicted
    refused = call("upgrade", "inner")
    assert refused.returncode == 118 and "VFIO" in refused.stderr, refused.stderr
    assert seen_by_the_guest(STORE) == functions
    tinamou("stop", "inner")
    assert (driver(first), driver(second)) == before
    tinamou("start", "inner")
    assert (driver(first), driver(second)) == ("vfio-pci", "vfio-pci")
    tinamou("rm", "-f", "inner")
    assert (driver(first), driver(second)) == before


def test_a_disk_is_read_as_fast_as_by_the_host(inner):
    """One that has a rate of its own, as hardware has: the other is as fast as the emulated processor."""
    rows = listed(STORE)
    for row in rows:
        tinamou("pci", "measure", row["address"])
    inner("--pci", rows[0]["address"])
    ready = "until [ -b /dev/nvme0n1 ] && [ -b /dev/nvme1n1 ]; do sleep 0.2; done"
    tinamou("exec", "inner", "--", "sh", "-c", ready)
    said = json.loads(call("pci", "check", "inner", "--transfer", "--json").stdout)
    found = {one["device"]: one for one in said if one["about"] == "transfer"}
    print(found)
    assert sorted(found) == [row["address"] for row in rows]
    assert found[rows[1]["address"]]["good"], found
    refused = call("pci", "measure", rows[0]["address"])
    assert refused.returncode and "no disk" in refused.stderr


def test_the_kernel_resets_it_in_the_way_that_is_asked_for(inner):
    store = next(
        row for row in json.loads(tinamou("pci", "ls", "--json")) if row["ids"] == STORE and row["virtual_functions"][1]
    )
    ways = Path(f"/sys/bus/pci/devices/{store['address']}/reset_method")
    before = ways.read_text()
    assert before.split() == store["resets"] == ["flr", "bus"]
    refused = call("run", "--set", f'pci=[{{device="{store["address"]}",reset="pm"}}]', "--accel", "kvm", "--", "true")
    assert refused.returncode == 112 and "pci[0].reset" in refused.stderr
    shown = inner("--set", f'pci=[{{device="{store["address"]}",reset="bus"}}]')
    assert ways.read_text().split() == ["bus"]
    assert seen_by_the_guest(STORE)
    os.kill(shown["pid"], signal.SIGKILL)
    gone(shown["pid"])
    tinamou("ls")
    assert ways.read_text() == before


def test_what_the_host_uses_is_not_given():
    disk = next(row for row in json.loads(tinamou("pci", "ls", "--json")) if "holds /" in row["state"])
    refused = call("run", "--pci", disk["address"], "--accel", "kvm", "--", "true")
    assert refused.returncode == 112
    assert "this host uses it: disk vda holds /" in refused.stderr
    assert call("pci", "take", disk["address"]).returncode == 113
    assert driver(disk["address"]) == "virtio-pci"


def test_one_function_without_its_neighbour_is_refused():
    first, second = (row["address"] for row in listed(STORE))
    refused = call("run", "--set", f'pci=[{{device="{first}",alone=true}}]', "--accel", "kvm", "--", "true")
    assert refused.returncode == 112
    assert f"tinamou pci take {second}" in refused.stderr
    assert driver(second) == "nvme"


def test_taken_by_hand_for_a_user():
    first, second = (row["address"] for row in listed(STORE))
    group = Path(f"/dev/vfio/{listed(STORE)[0]['group']}")
    tinamou("pci", "take", first, "--user", "nobody")
    try:
        assert (driver(first), driver(second)) == ("vfio-pci", "vfio-pci")
        assert group.owner() == "nobody"
        assert listed(STORE)[0]["state"] == "taken, waits for a machine"
        tinamou("run", "--pci", first, "--accel", "kvm", "--timeout", "500", "--", "true")
        assert (driver(first), group.owner()) == ("vfio-pci", "nobody")
        assert call("pci", "give", "00:01.0").returncode == 113
    finally:
        tinamou("pci", "give", first)
    assert (driver(first), driver(second)) == ("nvme", "nvme")
    assert not group.exists()
    assert call("pci", "give", first).returncode == 113
