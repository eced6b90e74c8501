"""What the host offers: CPUs and how they hang together, memory, tools, rights."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field
from tinamou.units import CpuSet, Size

EVERYBODY = -1
"""In ``HostFacts.device_groups``: no group is needed."""


@dataclass(frozen=True)
class Cache:
    """One cache: its level (1 to 4), type (``Data``, ``Instruction``, ``Unified``), size, and the CPUs sharing it."""

    level: int
    type: str
    size: Size
    cpus: CpuSet


@dataclass(frozen=True)
class Cpu:
    """One logical CPU as the kernel numbers it (source: Documentation/admin-guide/cputopology.rst).

    ``siblings`` are the hardware threads of its core, itself included; core numbers repeat from package to package, so
    siblings say what a core is. ``capacity`` is relative computing power, 1024 for the fastest; hybrid CPUs have several
    kinds. An offline CPU has no known place: its numbers are -1 and its only sibling is itself.
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


@dataclass(frozen=True)
class NumaNode:
    """One memory node: its CPUs, memory, distances, and huge pages as ``{page bytes: (total, free)}``.

    ``free`` is free or holds file pages that can be dropped. ``distances`` are in the order of ``HostFacts.nodes`` (10 is
    the node itself). A node may have memory and no CPU (GPU or CXL memory) or CPUs and no memory.
    """

    number: int
    cpus: CpuSet
    memory: Size
    free: Size
    distances: tuple[int, ...] = ()
    hugepages: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grouping:
    """Who makes control groups for this user: the ``kernel`` directly, the user's own ``systemd``, or nobody (empty).

    ``controllers`` are those such a group can have, under their names in version 2; ``fault`` says why there is none.
    ``huge`` is whether huge pages count as memory in them (mount option ``memory_hugetlb_accounting``).
    """

    by: str = ""
    controllers: frozenset[str] = frozenset()
    fault: str = "no control group hierarchy is mounted"
    huge: bool = False


@dataclass(frozen=True)
class HostFacts:
    """One host, as far as planning a machine needs to know it.

    ``allowed_cpus`` and ``allowed_nodes`` are what this process may use (affinity and cpuset cgroup); ``isolated_cpus``
    are kept from the scheduler by ``isolcpus`` (allowed too, when the cpuset has them), ``nohz_full_cpus`` from its tick.
    ``memory_available`` is already bounded by ``memory_limit``, the smallest limit of the memory cgroups above this process
    (None without one). ``thp`` is the transparent huge page mode (``always``, ``madvise``, ``never``, empty when unknown).
    ``cgroups`` maps each controller to the hierarchy that has it, ``v1`` or ``v2``. ``device_groups`` maps a device to the
    group whose members may read and write it: `EVERYBODY` when all may, None when only its owner may. ``apparmor`` says
    that the module is active, that it takes profiles from this process, and that its parser is installed,
    ``apparmor_refused`` why no program started here can enter one. ``selinux`` is the user and role of this process where
    that is active, ``selinux_refused`` why it can enter no label. ``smt``: cores run several
    hardware threads; ``core_scheduling``: the kernel can keep strangers off a core's other threads. ``holding``
    says why no QEMU can be made to map its memory anew, and is empty where it can.
    """

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
    is_root: bool
    groups: Mapping[str, int] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()
    nohz_full_cpus: CpuSet = field(default_factory=CpuSet)
    allowed_nodes: CpuSet = field(default_factory=CpuSet)
    memory_limit: Size | None = None
    thp: str = ""
    device_groups: Mapping[str, int | None] = field(default_factory=dict)
    cgroups: Mapping[str, str] = field(default_factory=dict)
    grouping: Grouping = field(default_factory=Grouping)
    apparmor: bool = False
    apparmor_refused: str = ""
    selinux: str = ""
    selinux_refused: str = ""
    smt: bool = False
    core_scheduling: bool = False
    holding: str = ""

    def has_tool(self, name: str) -> bool:
        """Whether a command such as ``swtpm`` is installed."""
        return name in self.tools

    @property
    def online_cpus(self) -> CpuSet:
        """Every CPU that is switched on."""
        return CpuSet(cpu.number for cpu in self.cpus if cpu.online)

    @property
    def usable_cpus(self) -> CpuSet:
        """The CPUs that are online and that this process may run on."""
        return CpuSet(self.online_cpus & self.allowed_cpus)

    def node(self, number: int) -> NumaNode | None:
        """The memory node of that number."""
        return next((node for node in self.nodes if node.number == number), None)

    def distance(self, one: int, other: int) -> int:
        """The NUMA distance between two nodes; 10 for the same one, 20 where the host does not say."""
        numbers = [node.number for node in self.nodes]
        node = self.node(one)
        if node is None or other not in numbers or len(node.distances) != len(numbers):
            return 10 if one == other else 20
        return node.distances[numbers.index(other)]
