"""Every command line of an article on QEMU becomes a machine that plans, and hears what was wrong in it."""

from __future__ import annotations

import pytest
from reading import converted, planned, said

from tinamou.errors import PlanError

PINNING = """
qemu-system-x86_64 -smp 4,sockets=1,cores=4,threads=1 -device qemu64,x2apic=on -numa node,cpus=0-3,nodeid=0
taskset -pc 8-11 $(pgrep qemu-system)
"""
HUGE_PAGES = """
echo 2048 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
qemu-system-x86_64 -m 4G -mem-path /dev/hugepages -mem-prealloc
"""
GPU = """
echo 0000:0b:00.0 > /sys/bus/pci/devices/0000:0b:00.0/driver/unbind
echo "10de 1db4" > /sys/bus/pci/drivers/vfio-pci/new_id
qemu-system-x86_64 -device vfio-pci,host=0b:00.0,multifunction=on -cpu host,kvm=off -vga none
"""
SEV = """
echo 0 > /sys/kernel/mm/ksm/run
qemu-system-x86_64 -object sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=1 -machine q35,confidential-guest-support=sev0
dmesg | grep sev
"""
SLOW_NET = "qemu-system-x86_64 -net nic,model=e1000 -net user"
FAST_NET = """
modprobe vhost_net
qemu-system-x86_64 -netdev tap,id=net0,ifname=vmtap0,script=no -device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56
"""
SNAPSHOTS = """
qemu-img create -f qcow2 base.qcow2 20G
qemu-img create -f qcow2 -b base.qcow2 snapshot1.qcow2
virsh snapshot-create-as --domain vm1 snap1 --disk-only --atomic
qemu-img check base.qcow2
virsh dommemstat vm1
"""

CASES = {
    "pinning": (
        PINNING,
        {"cpu": {"count": 4, "sockets": 1, "cores": 4, "threads": 1, "pin": "8-11"}},
        [
            ("changed", "-device qemu64,x2apic=on", "model of CPU, not a device", "QEMU refuses it"),
            ("changed", "8-11", "as a crowd"),
            ("check", "pgrep", "whichever"),
            ("done", "-numa", "one memory node"),
        ],
    ),
    "huge pages": (
        HUGE_PAGES,
        {"memory": {"size": "4G", "hugepages": "auto"}},
        [
            ("changed", "2048", "nr_hugepages", "reserved on demand"),
            ("changed", "-mem-path /dev/hugepages", "returned when it ends"),
            ("done", "-mem-prealloc"),
        ],
    ),
    "GPU": (
        GPU,
        {"pci": ["0b:00.0"]},
        [
            ("changed", "vfio-pci,host=0b:00.0", "all functions", "given back"),
            ("changed", "10de 1db4", "new_id", "by address"),
            ("changed", "0000:0b:00.0", "unbind"),
            ("changed", "kvm=off", "before 2021"),
            ("done", "-vga none"),
        ],
    ),
    "SEV": (
        SEV,
        {"confidential": {"type": "sev"}},
        [("check", "sev-guest", "cbitpos", "CPUID"), ("done", "ksm/run", "memory.merge"), ("done", "tinamou doctor")],
    ),
    "slow network": (
        SLOW_NET,
        {"net": [{}]},
        [("changed", "-net", "hub"), ("changed", "e1000", "virtio instead"), ("changed", "user", "passt")],
    ),
    "fast network": (
        FAST_NET,
        {"net": [{"type": "tap", "interface": "vmtap0", "mac": "52:54:00:12:34:56"}]},
        [("check", "ifname=vmtap0", "must be there"), ("done", "modprobe")],
    ),
    "snapshots": (
        SNAPSHOTS,
        {"disk": [{"size": "20G"}]},
        [
            ("check", "-b base.qcow2", "-b without -F fails"),
            ("changed", "base.qcow2", "layer by itself"),
            ("done", "snapshot-create-as", "tinamou snapshot create"),
            ("done", "dommemstat"),
            ("done", "qemu-img check", "tinamou check"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_plans_and_says_what_was_wrong(name):
    source, fields, notes = CASES[name]
    result = converted(source)
    assert {key: result.machine.get(key) for key in fields} == fields
    for rank, *words in notes:
        assert said(result, *words, rank=rank), (rank, words, list(map(str, result.notes)))
    plans(result)


def plans(result):
    """On a host that has what it asks for; encrypted memory is refused by one that cannot, rather than left out."""
    if "confidential" not in result.machine:
        planned(result)
        return
    with pytest.raises(PlanError, match=r"confidential\.type = 'sev'"):
        planned(result)


def test_each_line_alone_too():
    """Pasted one by one, as words of a shell."""
    for source, _, _ in CASES.values():
        for text in source.strip().splitlines():
            if text.startswith("qemu-system"):
                plans(converted(text.split()))


def test_nothing_of_them_is_silent():
    """Every option and every command has a note, or a field."""
    for name, (source, _, _) in CASES.items():
        result = converted(source)
        told = " ".join([*map(str, result.notes), str(result.machine)])
        for word in source.split():
            if word.startswith("-") and word not in ("-smp", "-m", "-cpu", "-device", "-netdev", "-object", "-machine", "|"):
                assert word in told, (name, word)
