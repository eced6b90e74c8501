"""Reads CPUs, caches and memory nodes from sysfs (source: the kernel's cputopology.rst and sysfs-devices-node)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tinamou.facts.host import Cache, Cpu, NumaNode
from tinamou.late import dataclass, replace
from tinamou.system.rooted import Rooted, mask
from tinamou.units import CpuSet, Size

__all__ = ["caches", "cpus", "nodes"]

_CPU = "/sys/devices/system/cpu"
_NODE = "/sys/devices/system/node"
_EFFICIENT = 640
_KIB = 1024


def _numbered(names: list[str], prefix: str) -> list[int]:
    return sorted(int(n[len(prefix) :]) for n in names if n.startswith(prefix) and n[len(prefix) :].isdecimal())


def _online(host: Rooted, present: list[int]) -> CpuSet:
    listed = host.cpu_list(f"{_CPU}/online")
    if listed is not None:
        return CpuSet(listed & set(present))
    return CpuSet(n for n in present if host.integer(f"{_CPU}/cpu{n}/online") != 0)


class _Spread:
    """Numbers that all CPUs of one group share: read from the first CPU of each group, remembered for the rest."""

    def __init__(self, host: Rooted, number: str, *groups: str) -> None:
        self.host, self.number, self.groups = host, number, groups
        self.known: dict[int, int] = {}

    def of(self, cpu: int) -> int:
        if cpu not in self.known:
            topology = f"{_CPU}/cpu{cpu}/topology/"
            value = self.host.integer(topology + self.number)
            found = (self.host.cpu_set(topology + group) for group in self.groups)
            members = next((group for group in found if group), CpuSet({cpu}))
            for member in members | {cpu}:
                self.known[member] = -1 if value is None or value == 65535 else value
        return self.known[cpu]


@dataclass(frozen=True)
class _Shared:
    package: _Spread
    die: _Spread
    cluster: _Spread
    core: _Spread


def cpus(host: Rooted, of_node: Mapping[int, int]) -> tuple[Cpu, ...]:
    """Every present CPU; ``of_node`` maps a CPU to its memory node."""
    present = _numbered(host.names(_CPU), "cpu")
    online = _online(host, present)
    shared = _Shared(
        _Spread(host, "physical_package_id", "package_cpus", "core_siblings"),
        _Spread(host, "die_id", "die_cpus", "core_siblings"),
        _Spread(host, "cluster_id", "cluster_cpus", "thread_siblings"),
        _Spread(host, "core_id", "core_cpus", "thread_siblings"),
    )
    capacity = _capacities(host, sorted(online))
    siblings = _siblings(host, online)
    return tuple(
        _cpu(n, shared, of_node.get(n, 0), siblings[n], capacity.get(n, 1024)) if n in online else _offline(n, of_node)
        for n in present
    )


def _offline(number: int, of_node: Mapping[int, int]) -> Cpu:
    return Cpu(number, -1, -1, -1, -1, of_node.get(number, -1), CpuSet({number}), online=False, capacity=0)


def _cpu(number: int, shared: _Shared, node: int, siblings: CpuSet, capacity: int) -> Cpu:
    return Cpu(
        number,
        package=max(shared.package.of(number), 0),
        die=max(shared.die.of(number), 0),
        cluster=shared.cluster.of(number),
        core=max(shared.core.of(number), 0),
        node=node,
        siblings=siblings,
        capacity=capacity,
    )


def _siblings(host: Rooted, online: CpuSet) -> dict[int, CpuSet]:
    known: dict[int, CpuSet] = {}
    for number in sorted(online):
        if number not in known:
            topology = f"{_CPU}/cpu{number}/topology/"
            found = host.cpu_set(topology + "thread_siblings") or host.cpu_set(topology + "core_cpus") or CpuSet()
            group = CpuSet((found & online) | {number})
            known.update(dict.fromkeys(group, group))
    return known


def _capacities(host: Rooted, online: list[int]) -> dict[int, int]:
    """Relative power of each CPU, 1024 for the fastest; from the first source the kernel has."""
    if not online:
        return {}
    for name in ("cpu_capacity", "acpi_cppc/highest_perf", "cpufreq/cpuinfo_max_freq"):
        if host.integer(f"{_CPU}/cpu{online[0]}/{name}") is None:
            continue
        values = {n: host.integer(f"{_CPU}/cpu{n}/{name}") or 0 for n in online}
        best = max(values.values()) or 1
        return {n: value * 1024 // best for n, value in values.items()}
    efficient = host.cpu_list("/sys/devices/cpu_atom/cpus") or CpuSet()
    return {n: _EFFICIENT if n in efficient else 1024 for n in online}


def caches(host: Rooted, found: tuple[Cpu, ...]) -> tuple[Cache, ...]:
    """Every cache once, biggest level last; a tree without cache folders gives none."""
    listing: list[Cache] = []
    covered: dict[str, set[int]] = {}
    shapes: dict[tuple[str, int], tuple[int, str, Size] | None] = {}
    online = CpuSet(cpu.number for cpu in found if cpu.online)
    for cpu in (c for c in found if c.online):
        for index in ("index0", "index1", "index2", "index3", "index4"):
            if cpu.number in covered.setdefault(index, set()):
                continue
            folder = f"{_CPU}/cpu{cpu.number}/cache/{index}/"
            shape = _shape(host, folder, shapes, (index, cpu.capacity))
            shared = host.cpu_list(folder + "shared_cpu_list") if shape else None
            shared = shared or (mask(host.read(folder + "shared_cpu_map") or "") if shape else CpuSet())
            members = CpuSet((shared | {cpu.number}) & online)
            covered[index] |= members
            if shape:
                listing.append(Cache(*shape, members))
    return tuple(sorted(listing, key=lambda cache: (cache.level, min(cache.cpus), cache.type)))


def _shape(
    host: Rooted, folder: str, shapes: dict[tuple[str, int], tuple[int, str, Size] | None], kind: tuple[str, int]
) -> tuple[int, str, Size] | None:
    if kind not in shapes:
        level, size = host.integer(folder + "level"), host.read(folder + "size")
        shapes[kind] = None if level is None else (level, host.read(folder + "type") or "Unified", _size(size))
    return shapes[kind]


def _size(text: str | None) -> Size:
    try:
        return Size.parse(text or 0)
    except ValueError:
        return Size(0)


def nodes(host: Rooted) -> tuple[NumaNode, ...]:
    """Every memory node; a kernel without NUMA is one node 0 with all CPUs and the memory of /proc/meminfo.

    A kernel that initialises memory lazily reports less for its only node than it has in all: the larger figure counts.
    """
    numbers = _numbered(host.names(_NODE), "node")
    if not numbers:
        return (_whole(host),)
    found = tuple(_node(host, n) for n in numbers)
    if len(found) == 1:
        whole = _whole(host)
        return (replace(found[0], memory=max(found[0].memory, whole.memory), free=max(found[0].free, whole.free)),)
    return found


def _node(host: Rooted, number: int) -> NumaNode:
    folder = f"{_NODE}/node{number}"
    members = host.cpu_list(f"{folder}/cpulist")
    memory = host.read(f"{folder}/meminfo") or ""
    return NumaNode(
        number,
        members if members is not None else mask(host.read(f"{folder}/cpumap") or ""),
        kib(memory, "MemTotal"),
        Size(sum(kib(memory, name) for name in ("MemFree", r"Active\(file\)", r"Inactive\(file\)", "SReclaimable"))),
        tuple(int(word) for word in (host.read(f"{folder}/distance") or "").split() if word.isdecimal()),
        _hugepages(host, f"{folder}/hugepages"),
    )


def _whole(host: Rooted) -> NumaNode:
    memory = host.read("/proc/meminfo") or ""
    present = CpuSet(_numbered(host.names(_CPU), "cpu"))
    pages = _hugepages(host, "/sys/kernel/mm/hugepages")
    available = kib(memory, "MemAvailable") or kib(memory, "MemFree")
    return NumaNode(0, present, kib(memory, "MemTotal"), available, (10,), pages)


def _hugepages(host: Rooted, folder: str) -> dict[int, tuple[int, int]]:
    pages: dict[int, tuple[int, int]] = {}
    for name in host.names(folder):
        if match := re.fullmatch(r"hugepages-(\d+)kB", name):
            total = host.integer(f"{folder}/{name}/nr_hugepages") or 0
            pages[int(match[1]) * _KIB] = (total, host.integer(f"{folder}/{name}/free_hugepages") or 0)
    return pages


def kib(text: str, name: str) -> Size:
    """``MemTotal:  1024 kB`` → 1 MiB, whatever stands before the name; 0 when it is not there."""
    match = re.search(rf"\b{name}:\s+(\d+) kB", text)
    return Size(int(match[1]) * _KIB if match else 0)
