"""What a pinning decision consists of: the request, the placement of every thread, and the topology the guest is shown."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.blueprint import Note, Why
from tinamou.late import dataclass, field
from tinamou.units import CpuSet, Size

__all__ = ["GuestTopology", "PinRequest", "Placement"]


@dataclass(frozen=True)
class PinRequest:
    """What is asked of the pinning planner.

    ``cpus`` None lets the planner choose (``pin = "auto"``). ``strict``: refuse rather than run unpinned or share.
    ``latency``: one vCPU per core, its sibling threads left idle. ``memory`` is the guest's, kept on one node where it fits.
    ``near`` is the memory node of a passed-through device. ``leased`` maps other machines to the CPUs they hold.
    """

    count: int
    cpus: CpuSet | None = None
    strict: bool = False
    latency: bool = False
    iothreads: int = 0
    memory: Size = Size(0)
    near: int | None = None
    leased: Mapping[str, CpuSet] = field(default_factory=dict)

    @property
    def taken(self) -> CpuSet:
        """Every CPU some other machine holds."""
        return CpuSet(cpu for cpus in self.leased.values() for cpu in cpus)


@dataclass(frozen=True)
class GuestTopology:
    """What the guest is shown: ``sockets * dies * clusters * cores * threads`` vCPUs (source: QEMU docs, ``-smp``).

    ``shared_l2`` says that each cluster shares a level 2 cache, which else each core has to itself.
    """

    sockets: int = 1
    dies: int = 1
    clusters: int = 1
    cores: int = 1
    threads: int = 1
    shared_l2: bool = False

    @property
    def count(self) -> int:
        """How many vCPUs that is."""
        return self.sockets * self.dies * self.clusters * self.cores * self.threads


@dataclass(frozen=True)
class Placement:
    """Where each thread of the machine runs. ``vcpus[i]`` are the CPUs of vCPU i: one, unless a named set is too small.

    ``idle`` are sibling threads kept free beside the vCPUs; ``nodes`` the host memory nodes in the order the guest sees
    them, with the vCPUs of each. Empty ``vcpus``: nothing is pinned, and ``notes`` say why.
    """

    vcpus: tuple[CpuSet, ...] = ()
    idle: CpuSet = field(default_factory=CpuSet)
    emulator: CpuSet = field(default_factory=CpuSet)
    iothreads: tuple[CpuSet, ...] = ()
    topology: GuestTopology | None = None
    nodes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    whys: tuple[Why, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def leased(self) -> CpuSet:
        """The CPUs this machine holds for itself while it runs: those of its vCPUs and the siblings kept idle."""
        return CpuSet(self.idle.union(*self.vcpus)) if self.vcpus else CpuSet()
