"""Hosts with devices worth giving away, of our own making: each as the files its kernel would show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host_trees import Tree

GPU, SOUND, NIC, VF, NVME, PORT, SWITCH, USB, NVSWITCH = (
    ("0302", "10de:20b0", "nvidia"),
    ("0403", "10de:1aef", "snd_hda_intel"),
    ("0200", "15b3:101d", "mlx5_core"),
    ("0200", "15b3:101e", "mlx5_core"),
    ("0108", "144d:a80a", "nvme"),
    ("0604", "8086:347a", "pcieport"),
    ("0604", "10b5:8749", "pcieport"),
    ("0c03", "8086:a0ed", "xhci_hcd"),
    ("0680", "10de:1af1", "nvidia-nvswitch"),
)


def dev(where: str, what: tuple[str, str, str], group: int | None, node: int = 0, **more: Any) -> dict[str, Any]:
    """One function: its way from the root complex (``64/64:00.0/65:00.0``), what it is, its IOMMU group, more files.

    ``window`` is the size of a large region in GiB; ``vf`` says of which card it is the virtual function, and which.
    """
    return {"where": where, "what": what, "group": group, "node": node, **more}


def _cards(count: int, per_node: int, window: int) -> list[dict[str, Any]]:
    """GPUs two by two behind a switch of each memory node's root port."""
    found = []
    for number in range(count):
        node, bus = number // per_node, 0x20 * (number // per_node + 1)
        above = f"{bus:02x}/{bus:02x}:00.0/{bus + 1:02x}:00.0/{bus + 2:02x}:{number % per_node:02x}.0"
        found.append(
            dev(
                f"{above}/{bus + 3 + number % per_node:02x}:00.0",
                GPU,
                40 + number,
                node,
                window=window,
                reset_method="flr bus",
            )
        )
    return found


def _ports(devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bridges on the way to devices, each in a group of its own."""
    found: dict[str, dict[str, Any]] = {}
    for one in devices:
        steps = one["where"].split("/")
        for count in range(2, len(steps)):
            where = "/".join(steps[:count])
            found.setdefault(where, dev(where, PORT if count == 2 else SWITCH, 200 + len(found), one["node"]))
    return [*found.values(), *devices]


_SHAPE = {"packages": 2, "nodes_per_package": 1, "cores": 8, "threads": 2, "memory_gib": 64}
_NIC4 = dev("00/00:02.0/05:00.0", NIC, 10, net="eth2", sriov_totalvfs="4", sriov_numvfs="4")
_VFS = [dev(f"00/00:02.0/05:00.{n + 1}", VF, 11 + n, vf=("05:00.0", n)) for n in range(4)]
_A, _B = "00/00:01.0/01:00", "00/00:03.0/02:00"

HOSTS: Mapping[str, tuple[Mapping[str, Any], list[dict[str, Any]], list[Any]]] = {
    "workstation": (
        {"cores": 8, "threads": 2},
        [dev(f"{_A}.0", GPU, 14, window=24), dev(f"{_A}.1", SOUND, 14), dev("00/00:14.0", USB, 5)],
        [["10de:20b0"], [{"device": "01:00.0", "alone": True}], ["00:14.0"], ["01:00.0", "01:00.1"]],
    ),
    "without-iommu": ({"cores": 4}, [dev(f"{_A}.0", GPU, None)], [["01:00.0"], ["10de:20b0"]]),
    "one-group": (
        {"cores": 4},
        [dev(f"{_A}.0", GPU, 1), dev(f"{_B}.0", NVME, 1), dev("00/00:14.0", USB, 1)],
        [["01:00.0"], ["01:00.0", "02:00.0", "00:14.0"]],
    ),
    "eight-gpus": (_SHAPE, _cards(8, 4, 64), [["10de:20b0"], ["10de:20b0"] * 4, ["10de:20b0"] * 8, ["10de:20b0"] * 9]),
    "four-nodes": (
        {"packages": 2, "nodes_per_package": 2, "cores": 4, "memory_gib": 32},
        _cards(4, 1, 16),
        [["23:00.0"], ["83:00.0"], ["43:00.0", "63:00.0"], ["10de:20b0"] * 4],
    ),
    "virtual-functions": (
        _SHAPE,
        [_NIC4, *_VFS],
        [["vf of eth2"], ["vf of 05:00.0"] * 4, ["vf of eth2"] * 5, ["05:00.0"], ["vf of eth9"], ["05:00.3"]],
    ),
    "none-switched-on": (
        _SHAPE,
        [{**_NIC4, "sriov_numvfs": "0"}, dev(f"{_A}.0", GPU, 14)],
        [["vf of eth2"], ["vf of 01:00.0"], ["05:00.0"]],
    ),
    "no-reset": ({"cores": 4}, [dev(f"{_A}.0", GPU, 3, resets=False), dev(f"{_B}.0", NVME, 4)], [["01:00.0"], ["02:00.0"]]),
    "disk-in-use": (
        {"cores": 4},
        [dev(f"{_B}.0", NVME, 4, disk="259:0"), dev("00/00:04.0/03:00.0", NVME, 6)],
        [["02:00.0"], ["144d:a80a"], ["144d:a80a"] * 2, ["00:04.0"]],
    ),
    "parts-of-a-card": (
        _SHAPE,
        [dev(f"{_A}.0", GPU, 14, 1, mdev="nvidia-471", window=1, resource1_resize="0000000000001f00", reset_method="bus")],
        [["01:00.0"], ["7f:00.0"], ["mdev of 01:00.0"], [{"device": "01:00.0", "region": "16G"}]],
    ),
    "divided-among-guests": (
        _SHAPE,
        [dev(f"{_A}.0", GPU, 14, 1, mdev="nvidia-471", made=("5a000000", "5b000000")), dev(f"{_B}.0", NVME, 4)],
        [
            ["mdev of 01:00.0"],
            ["mdev of 01:00.0"] * 2,
            ["mdev of 01:00.0"] * 3,
            ["mdev of 02:00.0"],
            ["mdev of 09:00.0"],
            [{"device": "mdev of 01:00.0", "region": "16G", "mac": "52:54:00:00:00:01"}],
        ],
    ),
    "gpu-instances": (_SHAPE, [dev(f"{_A}.0", GPU, 14, 1, mig=3)], [["01:00.0"], ["10de:20b0"]]),
    "joined-gpus": (
        _SHAPE,
        [*_cards(8, 4, 64), *(dev(f"c0/c0:00.0/c{n}:00.0", NVSWITCH, 60 + n, 1) for n in range(1, 5))],
        [
            ["10de:20b0"] * 8 + ["10de:1af1"] * 4,
            [{"device": "10de:20b0", "together": True}] * 2,
            [{"device": "10de:20b0", "together": True}] * 4,
            [{"device": "23:00.0", "together": True}, {"device": "43:00.0", "together": True}],
            ["10de:1af1"] * 5,
        ],
    ),
    "larger-regions": (
        {"cores": 8},
        [
            dev(f"{_A}.0", ("0300", "1002:73bf", "amdgpu"), 14, window=1, resource1_resize="0000000000007f00"),
            dev(f"{_A}.1", ("0403", "1002:ab28", "snd_hda_intel"), 14),
        ],
        [
            ["01:00.0"],
            [{"device": "01:00.0", "region": "16G"}],
            [{"device": "01:00.0", "region": "3G"}],
            [{"device": "01:00.1", "alone": True, "region": "16G"}],
        ],
    ),
    "pretended-groups": (
        {"cores": 4, "cmdline": "quiet pcie_acs_override=downstream,multifunction"},
        [dev(f"{_A}.0", GPU, 14), dev(f"{_B}.0", NVME, 15)],
        [["01:00.0"], ["02:00.0"]],
    ),
    "own-graphics": (
        {"cores": 4, "addresses": 39},
        [dev("00/00:02.0", ("0300", "8086:3e92", "i915"), 1), dev(f"{_A}.0", GPU, 14, window=256)],
        [["00:02.0"], ["01:00.0"]],
    ),
    "reset-by-the-bus": (
        {"cores": 4},
        [*(dev(f"{_A}.{n}", GPU, 14, reset_method="bus") for n in (0, 1)), dev(f"{_B}.0", NVME, 15, reset_method="pm bus")],
        [["01:00.0"], [{"device": "01:00.0", "alone": True}], ["02:00.0"]],
    ),
    "virtual-functions-of-disks": (
        _SHAPE,
        [
            dev("00/00:03.0/02:00.0", NVME, 20, sriov_totalvfs="32", sriov_numvfs="2"),
            *(dev(f"00/00:03.0/02:00.{n + 1}", NVME, 21 + n, vf=("02:00.0", n)) for n in range(2)),
        ],
        [["vf of 02:00.0"], ["vf of 02:00.0"] * 3, [{"device": "vf of 02:00.0", "mac": "52:54:00:00:00:01"}], ["02:00.0"]],
    ),
}
"""Name → its shape, its devices, and what is asked of it, one list of ``pci`` after the other."""


def build(root: Path, name: str) -> Path:
    """Write one of them below a folder."""
    shape, devices, _ = HOSTS[name]
    said = {"cmdline": shape.get("cmdline", "quiet"), "addresses": shape.get("addresses", 46)}
    tree = Tree(root, **{key: value for key, value in shape.items() if key not in said})
    tree.write("/proc/cpuinfo", f"vendor_id\t: GenuineIntel\naddress sizes\t: {said['addresses']} bits physical")
    tree.write("/proc/cmdline", said["cmdline"])
    tree.write("/proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/root rw")
    (root / "sys/class/net").mkdir(parents=True)
    for one in _ports(devices):
        _add(tree, one)
    return root


def _add(tree: Tree, one: dict[str, Any]) -> None:
    root, *way = one["where"].split("/")
    address = f"0000:{way[-1]}"
    place = f"/sys/devices/pci0000:{root}/" + "/".join(f"0000:{step}" for step in way)
    code, ids, driver = one["what"]
    vendor, _, device = ids.partition(":")
    for name, text in {"class": f"0x{code}00", "vendor": f"0x{vendor}", "device": f"0x{device}"}.items():
        tree.write(f"{place}/{name}", text)
    tree.write(f"{place}/numa_node", one["node"])
    size = one.get("window", 0) << 30
    tree.write(f"{place}/resource", f"0x0 0x0 0x0\n0x{1 << 42:x} 0x{(1 << 42) + size - 1:x} 0x14220c" if size else "")
    if one.get("resets", True):
        tree.write(f"{place}/reset_method", one.get("reset_method", "flr"))
    for name in ("sriov_totalvfs", "sriov_numvfs", "resource1_resize"):
        if name in one:
            tree.write(f"{place}/{name}", one[name])
    _link(tree, f"{place}/driver", f"/sys/bus/pci/drivers/{driver}")
    if one["group"] is not None:
        _link(tree, f"{place}/iommu_group", f"/sys/kernel/iommu_groups/{one['group']}")
    if "net" in one:
        tree.write(f"{place}/net/{one['net']}/flags", "0x1002")
        _link(tree, f"/sys/class/net/{one['net']}", f"{place}/net/{one['net']}")
    if "vf" in one:
        card, number = one["vf"]
        parent = f"{place.rpartition('/')[0]}/0000:{card}"
        _link(tree, f"{place}/physfn", parent)
        _link(tree, f"{parent}/virtfn{number}", place)
    if "disk" in one:
        tree.write(f"{place}/nvme/nvme0/nvme0n1/dev", one["disk"])
        _link(tree, "/sys/class/block/nvme0n1", f"{place}/nvme/nvme0/nvme0n1")
    if "mdev" in one:
        kind = f"{place}/mdev_supported_types/{one['mdev']}"
        for name, text in {"name": "GRID A100-10C", "available_instances": "8", "description": "framebuffer=10240M"}.items():
            tree.write(f"{kind}/{name}", text)
        for number, made in enumerate(one.get("made", ())):
            uuid = f"{made}-0000-4000-8000-000000000000"
            _link(tree, f"{place}/{uuid}/mdev_type", kind)
            _link(tree, f"{place}/{uuid}/iommu_group", f"/sys/kernel/iommu_groups/{90 + number}")
            _link(tree, f"/sys/bus/mdev/devices/{uuid}", f"{place}/{uuid}")
    if "mig" in one:
        tree.write(f"/proc/driver/nvidia/gpus/{address}/information", "Device Minor: 0")
        for number in range(one["mig"]):
            tree.write(f"/proc/driver/nvidia/capabilities/gpu0/mig/gi{number}/access", "DeviceFileMinor: 9")
    _link(tree, f"/sys/bus/pci/devices/{address}", place)


def _link(tree: Tree, path: str, target: str) -> None:
    place, leads = tree.root / path.lstrip("/"), tree.root / target.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    leads.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(leads, place.parent))
