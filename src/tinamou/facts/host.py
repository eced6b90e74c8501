"""What the host offers: CPUs and how they hang together, memory, tools, rights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinamou.units import CpuSet, Size


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache: its level (1 to 4), type (``Data``, ``Instruction``, ``Unified``), size, and the CPUs sharing it."""

    level: int
    type: str
    size: Size
    cpus: CpuSet


@dataclass(frozen=True, slots=True)
class Cpu:
    """One logical CPU as the kernel numbers it (source: Documentation/admin-guide/cputopology.rst).

    ``capacity`` is relative computing power, 1024 for the fastest kind; hybrid CPUs have several.
    """

    number: int
    package: int
    die: int
    cluster: int
    core: int
    node: int
    siblings: CpuSet
    online: bool = True
    capacity: int = 1024


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One memory node: its CPUs, memory, distances to every node, and huge pages as ``{page bytes: (total, free)}``."""

    number: int
    cpus: CpuSet
    memory: Size
    free: Size
    distances: tuple[int, ...] = ()
    hugepages: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host, as far as planning a machine needs to know it."""

    system: str
    arch: str
    kernel: str
    cpus: tuple[Cpu, ...]
    caches: tuple[Cache, ...]
    nodes: tuple[NumaNode, ...]
    allowed_cpus: CpuSet
    isolated_cpus: CpuSet
    memory: Size
    memory_available: Size
    page_size: Size
    is_root: bool
    groups: Mapping[str, int] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()

    def has_tool(self, name: str) -> bool:
        """Whether a command such as ``swtpm`` is installed."""
        return name in self.tools
