"""Reads what the control groups above this process allow: CPUs, memory nodes, memory (source: cgroup-v2.rst, cgroup-v1/)."""

from __future__ import annotations

from tinamou.late import dataclass, field
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet, Size

__all__ = ["CgroupLimits", "Hierarchy", "hierarchies", "limits"]

_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup tree: version, mount point, its controllers, and the path of this process in it."""

    version: str
    mount: str
    controllers: frozenset[str]
    path: str
    options: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """The absolute folder of this process's group."""
        return (self.mount + self.path).rstrip("/")


@dataclass(frozen=True)
class CgroupLimits:
    """``cpus`` and ``nodes`` None: no cpuset; ``memory`` None: no limit; ``memory_left`` below the tightest limit."""

    cpus: CpuSet | None = None
    nodes: CpuSet | None = None
    memory: Size | None = None
    memory_left: Size | None = None
    controllers: dict[str, str] = field(default_factory=dict)


def _own_paths(host: Rooted) -> dict[str, str]:
    """Controller → path of this process; the empty name is the v2 hierarchy."""
    paths: dict[str, str] = {}
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        paths.update(dict.fromkeys([""] if number == "0" else names.split(","), path))
    return paths


def _mounts(host: Rooted) -> list[tuple[str, str, list[str]]]:
    text = host.read("/proc/self/mounts") or host.read("/proc/mounts") or ""
    rows = (line.split(" ") for line in text.splitlines())
    return [(row[2], row[1], row[3].split(",")) for row in rows if len(row) > 3 and row[2] in ("cgroup", "cgroup2")]


def hierarchies(host: Rooted) -> list[Hierarchy]:
    """Every mounted hierarchy; a v2 one with the controllers that are not taken by v1."""
    own, found = _own_paths(host), []
    for kind, mount, options in _mounts(host):
        if kind == "cgroup2":
            names = (host.read(f"{mount}/cgroup.controllers") or "").split()
            found.append(Hierarchy("v2", mount, frozenset(names), own.get("", "/"), frozenset(options)))
            continue
        mine = frozenset(options) & (own.keys() | {"cpu", "cpuacct", "cpuset", "memory", "blkio", "hugetlb", "pids"})
        path = next((own[name] for name in sorted(mine) if name in own), "/")
        if mine:
            found.append(Hierarchy("v1", mount, mine, path))
    return found


def limits(host: Rooted) -> CgroupLimits:
    """The limits that hold for this process, v1 and v2 together."""
    found = hierarchies(host)
    controllers = {name: h.version for h in found for name in h.controllers}
    cpus, nodes = _cpuset(host, found)
    memory, left = _memory(host, found)
    return CgroupLimits(cpus, nodes, memory, left, controllers)


def _cpuset(host: Rooted, found: list[Hierarchy]) -> tuple[CpuSet | None, CpuSet | None]:
    for hierarchy in (h for h in found if "cpuset" in h.controllers):
        names = ("cpus.effective", "mems.effective") if hierarchy.version == "v2" else ("effective_cpus", "effective_mems")
        pair = [host.cpu_list(f"{hierarchy.folder}/cpuset.{name}") for name in names]
        return pair[0] or None, pair[1] or None
    return None, None


def _ancestors(hierarchy: Hierarchy) -> list[str]:
    parts = [part for part in hierarchy.path.split("/") if part]
    return ["/".join([hierarchy.mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]


def _memory(host: Rooted, found: list[Hierarchy]) -> tuple[Size | None, Size | None]:
    limit, left = _UNLIMITED, _UNLIMITED
    for hierarchy in (h for h in found if "memory" in h.controllers):
        v2 = hierarchy.version == "v2"
        names = ("memory.max", "memory.current") if v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for folder in _ancestors(hierarchy):
            bound = host.integer(f"{folder}/{names[0]}")
            if bound is not None and bound < _UNLIMITED:
                limit = min(limit, bound)
                left = min(left, max(bound - (host.integer(f"{folder}/{names[1]}") or 0), 0))
    return (None, None) if limit == _UNLIMITED else (Size(limit), Size(left))
