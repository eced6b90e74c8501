"""The host's CPUs as a tree, memory node → last-level cache → cluster → core → thread, for the CPUs that may be used."""

from __future__ import annotations

from collections.abc import Iterable

from tinamou.facts.host import Cpu, HostFacts
from tinamou.late import dataclass
from tinamou.units import CpuSet

__all__ = ["Branch", "Core", "clusters_of", "last_level_caches", "performance_cpus", "tree"]

_SLOWER = 0.75


@dataclass(frozen=True)
class Core:
    """The free hardware threads of one core; ``whole`` when none of its threads is leased, offline or forbidden."""

    threads: tuple[int, ...]
    whole: bool

    def room(self, threads: int) -> int:
        """How many vCPUs it takes when each core must take ``threads`` of them: that number or none."""
        return threads if len(self.threads) >= threads else 0


@dataclass(frozen=True)
class Branch:
    """One level: ``number`` is the node's number or the lowest CPU below; either branches or cores hang on it."""

    number: int
    branches: tuple[Branch, ...] = ()
    cores: tuple[Core, ...] = ()

    def all_cores(self) -> tuple[Core, ...]:
        """Every core below."""
        return self.cores + tuple(core for branch in self.branches for core in branch.all_cores())

    def room(self, threads: int) -> int:
        """How many vCPUs fit below."""
        return sum(core.room(threads) for core in self.all_cores())

    @property
    def cpus(self) -> CpuSet:
        """Every free CPU below."""
        return CpuSet(cpu for core in self.all_cores() for cpu in core.threads)


def performance_cpus(host: HostFacts) -> CpuSet:
    """The CPUs of the fast kind: at least three quarters of the power of the fastest (turbo favourites count as equal)."""
    best = max((cpu.capacity for cpu in host.cpus if cpu.online), default=0)
    return CpuSet(cpu.number for cpu in host.cpus if cpu.online and cpu.capacity >= best * _SLOWER)


def last_level_caches(host: HostFacts) -> dict[int, CpuSet]:
    """Online CPU → the CPUs it shares its biggest cache with; its whole memory node where the kernel shows no cache."""
    shared: dict[int, tuple[int, CpuSet]] = {}
    for cache in host.caches:
        if cache.type != "Instruction":
            for cpu in cache.cpus:
                if cache.level >= shared.get(cpu, (0, CpuSet()))[0]:
                    shared[cpu] = (cache.level, cache.cpus)
    nodes = {cpu: node.cpus for node in host.nodes for cpu in node.cpus}
    alone = {number: (0, nodes.get(number, CpuSet({number}))) for number in host.online_cpus}
    return {number: shared.get(number, whole)[1] for number, whole in alone.items()}


def clusters_of(host: HostFacts) -> dict[int, CpuSet]:
    """CPU → the CPUs of its level 2 cache, or of its cluster where that is wider and the kernel knows it."""
    groups = {
        cpu: cache.cpus for cache in host.caches if cache.level == 2 and cache.type != "Instruction" for cpu in cache.cpus
    }
    by_cluster: dict[tuple[int, int], set[int]] = {}
    for cpu in host.cpus:
        if cpu.online and cpu.cluster >= 0:
            by_cluster.setdefault((cpu.package, cpu.cluster), set()).add(cpu.number)
    for members in by_cluster.values():
        for number in members:
            if len(members) > len(groups.get(number, ())):
                groups[number] = CpuSet(members)
    return groups


def _split(cpus: Iterable[Cpu], groups: dict[int, CpuSet]) -> list[list[Cpu]]:
    found: dict[int, list[Cpu]] = {}
    for cpu in cpus:
        group = groups.get(cpu.number) or cpu.siblings
        found.setdefault(min(group | cpu.siblings), []).append(cpu)
    return list(found.values())


def _cores(cpus: list[Cpu], free: CpuSet) -> tuple[Core, ...]:
    found = dict.fromkeys(cpu.siblings for cpu in cpus)
    cores = (Core(tuple(sorted(siblings & free)), siblings <= free) for siblings in found)
    return tuple(sorted(cores, key=lambda core: (not core.whole, core.threads)))


def tree(host: HostFacts, free: CpuSet) -> tuple[Branch, ...]:
    """One branch per memory node that has a free CPU, ordered by number."""
    caches, clusters = last_level_caches(host), clusters_of(host)
    usable = [cpu for cpu in host.cpus if cpu.number in free]
    branches = []
    for number in sorted({cpu.node for cpu in usable}):
        below = []
        for shared in _split([cpu for cpu in usable if cpu.node == number], caches):
            parts = [_cores(part, free) for part in _split(shared, clusters)]
            leaves = tuple(Branch(cores[0].threads[0], cores=cores) for cores in parts)
            below.append(Branch(min(cpu.number for cpu in shared), branches=leaves))
        branches.append(Branch(number, branches=tuple(below)))
    return tuple(branches)
