"""Examines the host's PCI devices: their groups, drivers and memory nodes, and what the host uses them for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from tinamou.facts.pci import VFIO, PciDevice, PciFacts
from tinamou.probe import interfaces, mediated
from tinamou.system.memlock import lockable
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet, PciAddress, Size

__all__ = ["devices_by_node", "probe_pci", "uses_below", "uses_of"]

_FOLDER = "/sys/bus/pci/devices"
_KINDS = {
    "0108": "NVMe", "0104": "RAID", "0106": "SATA", "0107": "SAS", "02": "network", "03": "graphics", "0403": "audio",
    "0604": "bridge", "0680": "other bridge", "0b40": "coprocessor", "0c03": "USB", "12": "accelerator",
}  # fmt: skip
"""PCI class prefixes and their names (source: pci.ids)."""

_WORTH_SITTING_BESIDE = {"network", "NVMe", "RAID", "SAS", "graphics", "accelerator", "coprocessor"}

_MEMORY, _PREFETCH, _WIDE = 0x200, 0x2000, 0x100000
"""Flags of a region in the file ``resource`` (source: include/linux/ioport.h)."""
_LARGE = _MEMORY | _PREFETCH | _WIDE
_REGIONS = 6


def probe_pci(files: Rooted, leased: Mapping[str, str]) -> PciFacts:
    """Every function of the host whose /sys lies below the root; ``leased`` maps an address to the machine that has it."""
    users = _card_users(files)
    uses = [*uses_of(files), *_screens_used(files, users)]
    found = tuple(_device(files, name, uses, users) for name in files.names(_FOLDER) if _is_address(name))
    groups = {one.group for one in found if one.group is not None}
    opened = frozenset(number for number in groups if files.real and os.access(f"/dev/vfio/{number}", os.R_OK | os.W_OK))
    return PciFacts(
        found,
        leased,
        opened,
        lockable() if files.real else None,
        _missing(found),
        _one_by_one(files),
        next((one for one in (files.read("/proc/cmdline") or "").split() if one.startswith("pcie_acs_override=")), ""),
        int(match[1]) if (match := re.search(r"address sizes\s*: (\d+) bits", files.read("/proc/cpuinfo") or "")) else 0,
        tuple(mediated.made(files)),
    )


def _one_by_one(files: Rooted) -> bool:
    """Whether vfio makes a file for each device: it says so once it is loaded, before that its configuration does."""
    if files.exists("/sys/module/vfio"):
        return any(line.split()[1:] == ["vfio-dev"] for line in (files.read("/proc/devices") or "").splitlines())
    release = files.read("/proc/sys/kernel/osrelease") or ""
    built = (files.read(f"/boot/config-{release}") or "").splitlines()
    return "CONFIG_VFIO_DEVICE_CDEV=y" in built


def devices_by_node(files: Rooted) -> dict[int, list[str]]:
    """Memory node → ``0000:65:00.0 graphics``, for what is worth sitting beside; without those whose node is not known."""
    found: dict[int, list[str]] = {}
    for address in files.names(_FOLDER):
        node, kind = files.integer(f"{_FOLDER}/{address}/numa_node"), _kind(_code(files, address))
        if node is not None and node >= 0 and kind in _WORTH_SITTING_BESIDE:
            names = files.names(f"{_FOLDER}/{address}/net")
            found.setdefault(node, []).append(" ".join([address, kind, *names]))
    return found


def _code(files: Rooted, address: str) -> str:
    """Class and subclass, four hexadecimal digits."""
    return (files.read(f"{_FOLDER}/{address}/class") or "").removeprefix("0x")[:4]


def _kind(code: str) -> str:
    return next((kind for prefix, kind in _KINDS.items() if code.startswith(prefix)), "")


def _is_address(name: str) -> bool:
    try:
        PciAddress.parse(name)
    except ValueError:
        return False
    return True


def _device(files: Rooted, name: str, uses: Iterable[tuple[str, str]], users: Mapping[str, list[str]]) -> PciDevice:
    place = f"{_FOLDER}/{name}"
    code = _code(files, name)
    group = files.target(f"{place}/iommu_group")
    node = files.integer(f"{place}/numa_node")
    driver = files.target(f"{place}/driver")
    parent = files.target(f"{place}/physfn")
    above = [part for part in _real(files, place).split("/")[:-1] if _is_address(part)]
    regions = dict(_regions(files.read(f"{place}/resource") or ""))
    return PciDevice(
        address=PciAddress.parse(name),
        vendor=(files.read(f"{place}/vendor") or "").removeprefix("0x"),
        device=(files.read(f"{place}/device") or "").removeprefix("0x"),
        code=code,
        driver=driver,
        group=int(group) if group.isdecimal() else None,
        node=-1 if node is None else node,
        window=Size(sum(size for size, flags in regions.values() if flags & _LARGE == _LARGE)),
        uses=() if driver in ("", VFIO) else tuple(_own_uses(files, place, uses, users)),
        resets=bool(files.read(f"{place}/reset_method")) or files.exists(f"{place}/reset"),
        virtual=bool(parent),
        kind=_kind(code),
        parent=PciAddress.parse(parent) if parent else None,
        index=_index(files, f"{place}/physfn", name) if parent else -1,
        root=next(
            (part[3:] for part in _real(files, place).split("/") if re.fullmatch(r"pci[0-9a-f]{4,}:[0-9a-f]{2}", part)), ""
        ),
        bridges=tuple(above),
        cpus=files.cpu_list(f"{place}/local_cpulist") or CpuSet(),
        nets=tuple(_interfaces(files, place)),
        reset_methods=tuple((files.read(f"{place}/reset_method") or "").split()),
        vfs=(files.integer(f"{place}/sriov_numvfs") or 0, files.integer(f"{place}/sriov_totalvfs") or 0),
        mediated=tuple(mediated.kinds(files, place)),
        bars={number: size for number, (size, flags) in regions.items() if flags & _MEMORY},
        sizes={
            number: sizes for number in regions if (sizes := _sizes(files.read(f"{place}/resource{number}_resize") or ""))
        },
    )


def _interfaces(files: Rooted, place: str) -> Iterator[str]:
    """A card's own, and those of a virtio card, which lie a folder deeper."""
    yield from files.names(f"{place}/net")
    for name in files.names(place):
        if name.startswith("virtio"):
            yield from files.names(f"{place}/{name}/net")


def _index(files: Rooted, card: str, name: str) -> int:
    """Which virtual function of its card that is, by the card's links ``virtfnN``; -1 where it has none."""
    numbers = (one.removeprefix("virtfn") for one in files.names(card) if one.startswith("virtfn"))
    return next((int(one) for one in numbers if files.target(f"{card}/virtfn{one}") == name), -1)


def _regions(text: str) -> Iterator[tuple[int, tuple[Size, int]]]:
    """Number → size and flags of the six regions of a function; each line is ``START END FLAGS``."""
    for number, line in enumerate(text.splitlines()[:_REGIONS]):
        words = line.split()
        if len(words) != 3 or not all(re.fullmatch(r"0x[0-9a-f]{1,16}", word) for word in words):
            continue
        start, end, flags = (int(word, 16) for word in words)
        if end > start:
            yield number, (Size(end - start + 1), flags)


def _sizes(text: str) -> tuple[Size, ...]:
    """The sizes a region can be given: bit n stands for 2^n MiB (source: sysfs-bus-pci, resourceN_resize)."""
    try:
        bits = int(text, 16)
    except ValueError:
        return ()
    return tuple(Size(1 << 20 + bit) for bit in range(bits.bit_length()) if bits >> bit & 1)


def uses_of(files: Rooted) -> Iterator[tuple[str, str]]:
    """Where in /sys/devices something is that the host uses, and how: an interface somebody works with, a disk."""
    for name, use in interfaces.used(files):
        yield _real(files, f"/sys/class/net/{name}"), f"network interface {name} {use}"
    mounted = _mounted(files)
    for name in files.names("/sys/class/block"):
        for use in _disk_uses(files, name, mounted):
            yield _real(files, f"/sys/class/block/{name}"), use


def uses_below(files: Rooted, place: str, uses: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Those of what is a part of the device at that place."""
    own = _real(files, place) + "/"
    return (use for where, use in uses if where.startswith(own))


def _screens_used(files: Rooted, users: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    for name in files.names("/sys/class/drm"):
        if name in users:
            yield _real(files, f"/sys/class/drm/{name}"), f"{' and '.join(users[name])} use {name}"


def _own_uses(files: Rooted, place: str, uses: Iterable[tuple[str, str]], users: Mapping[str, list[str]]) -> Iterator[str]:
    """What would break if the device at that place were gone."""
    if count := files.integer(f"{place}/sriov_numvfs"):
        yield f"{count} virtual functions are switched on"
    yield from uses_below(files, place, uses)
    if files.real and _kind(_code(files, place.rpartition("/")[2])) == "network" and not any(_interfaces(files, place)):
        yield "its interface is in another network namespace, or a program has it"
    if (minor := _nvidia_minor(files, place)) and (name := f"nvidia{minor}") in users:
        yield f"{' and '.join(users[name])} use {name}"
    if count := sum(one.startswith("gi") for one in files.names(f"/proc/driver/nvidia/capabilities/gpu{minor}/mig")):
        yield f"it is divided into {count} GPU instances (MIG; nvidia-smi mig -dci, then -dgi, ends that)"


def _real(files: Rooted, path: str) -> str:
    return os.path.realpath(files.path(path))


def _disk_uses(files: Rooted, name: str, mounted: Mapping[str, str]) -> Iterator[str]:
    number = files.read(f"/sys/class/block/{name}/dev") or ""
    if number in mounted:
        yield f"disk {name} holds {mounted[number]}"
    for holder in files.names(f"/sys/class/block/{name}/holders"):
        yield f"disk {name} is part of {holder}"


def _mounted(files: Rooted) -> dict[str, str]:
    """``MAJOR:MINOR`` → mount point, and ``swap`` (source: proc_pid_mountinfo(5), proc_swaps(5))."""
    rows = [line.split() for line in (files.read("/proc/self/mountinfo") or "").splitlines()]
    found = {row[2]: row[4] for row in reversed(rows) if len(row) > 4}
    for line in (files.read("/proc/swaps") or "").splitlines()[1:]:
        name = line.split()[0].rpartition("/")[2]
        if number := files.read(f"/sys/class/block/{name}/dev"):
            found[number] = "swap"
    return found


def _card_users(files: Rooted) -> dict[str, list[str]]:
    """Graphics device (``card0``, ``renderD128``, ``nvidia0``) → the programs that have it open, as far as one may see."""
    found: dict[str, set[str]] = {}
    if not files.names("/sys/class/drm") and not files.exists("/proc/driver/nvidia"):
        return {}
    for process in filter(str.isdecimal, files.names("/proc")):
        for number in files.names(f"/proc/{process}/fd"):
            name = files.target(f"/proc/{process}/fd/{number}")
            if name.startswith(("card", "renderD", "nvidia")):
                found.setdefault(name, set()).add(f"{files.read(f'/proc/{process}/comm')} ({process})")
    return {name: sorted(programs) for name, programs in found.items()}


def _nvidia_minor(files: Rooted, place: str) -> str:
    """The number in /dev/nvidiaN, as NVIDIA's driver tells it."""
    text = files.read(f"/proc/driver/nvidia/gpus/{place.rpartition('/')[2]}/information") or ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "Device Minor"), "")


def _missing(devices: tuple[PciDevice, ...]) -> str:
    """Why nothing can be given away, if so."""
    if not devices:
        return "this host has no PCI devices"
    if all(one.group is None for one in devices):
        return "no IOMMU is on: tinamou doctor says how to switch it on"
    return ""
