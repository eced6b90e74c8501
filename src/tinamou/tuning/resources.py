"""Decides what the machine gets of the host: CPUs, memory nodes, huge pages; and whether there is enough of it."""

from __future__ import annotations

from tinamou.blueprint import Contribution, LeaseCpus, Note, Pinning, ReserveHugepages, Step, Why
from tinamou.errors import PlanError, Problem
from tinamou.facts import Facts
from tinamou.late import dataclass, field
from tinamou.parts.cpu import CpuSpec
from tinamou.parts.limits import LimitsSpec
from tinamou.parts.memory import MemorySpec
from tinamou.parts.passthrough import node
from tinamou.parts.protocol import Part, Resolved
from tinamou.tuning.accel import translation_cache
from tinamou.tuning.admission import MemoryBill, admit
from tinamou.tuning.hugepages import HugepagePlan, huge_pages
from tinamou.tuning.numa import NumaPlan, equal_nodes, memory_nodes
from tinamou.tuning.placement import GuestTopology, PinRequest, Placement
from tinamou.tuning.realtime import real_time
from tinamou.units import CpuSet, Size

__all__ = ["PART", "Resources", "decide"]


@dataclass(frozen=True)
class Resources:
    """The decisions, their host steps, and what the user must hear about them."""

    placement: Placement = field(default_factory=Placement)
    numa: NumaPlan = field(default_factory=lambda: NumaPlan(()))
    pages: HugepagePlan = field(default_factory=HugepagePlan)
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    iothreads: tuple[str, ...] = ()
    priority: int = 0

    @property
    def topology(self) -> GuestTopology | None:
        """The topology the guest is shown because of its memory nodes or of where it runs; None where neither matters."""
        nodes = self.numa.nodes
        if self.placement.topology or len(nodes) < 2:
            return self.placement.topology
        return GuestTopology(sockets=len(nodes), cores=len(nodes[0].vcpus))

    @property
    def pinning(self) -> Pinning | None:
        """Where each thread of QEMU shall run, None when the kernel decides."""
        if not self.placement.vcpus:
            return None
        threads = dict(zip(self.iothreads, self.placement.iothreads, strict=True))
        return Pinning(self.placement.vcpus, self.placement.emulator, threads, self.priority)


def decide(resolved: Resolved) -> Resources:
    """Decides, in this order: where the vCPUs run, where the memory lies, on which pages, and whether it fits.

    It lies near ``cpu.near``, else near the first assigned device. Raises PlanError with the arithmetic when what was
    requested cannot be had.
    """
    facts, cpu, memory, limits = resolved.facts, resolved.spec.cpu, resolved.spec.memory, resolved.spec.limits
    host, place = facts.host, facts.place
    iothreads = tuple(f"{disk.node}-io" for disk in resolved.disks if disk.options.iothread)
    near = _near(cpu, facts) if cpu.near else node(resolved.assigned)
    placement = _placement(cpu, memory, facts, len(iothreads), near)
    numa = memory_nodes(host, placement, cpu.count, memory.size, _page(memory), strict=cpu.strict)
    if cpu.nodes > 1:
        numa = equal_nodes(cpu.count, memory.size, cpu.nodes, _page(memory), _single_node(numa))
    if memory.forkable and len(numa.nodes) > 1:
        reason = f"the memory of a forkable machine is one piece, and this one has {len(numa.nodes)} memory nodes"
        path, fix = ("cpu.nodes", "leave one of the two out") if cpu.nodes > 1 else ("cpu.pin", "pin it to one node")
        problem = Problem(path, cpu.nodes if cpu.nodes > 1 else cpu.pin, reason, fix)
        raise PlanError("the machine cannot be forkable", problems=[problem])
    pages = huge_pages(host, memory.hugepages, numa.nodes)
    overhead = MemoryBill.qemu_overhead(cpu.room, translation_cache(resolved.accel, memory.size))
    ram = Size(0) if pages.page else memory.size
    _check_limit(limits, ram, overhead)
    said = admit(host, MemoryBill(ram, pages.to_reserve, overhead, place.claims), overcommit=memory.overcommit)
    notes = (*placement.notes, *numa.notes, *pages.notes, *said, *real_time(cpu, limits, facts, placement))
    steps: tuple[Step, ...] = (*_lend(placement, cpu), *_reserve(pages))
    return Resources(placement, numa, pages, steps, notes, iothreads, cpu.realtime)


def contribute(resolved: Resolved) -> Contribution:
    """What is taken from the host, and what must be said about it."""
    return Contribution(steps=resolved.resources.steps, notes=resolved.resources.notes)


def _single_node(numa: NumaPlan) -> int | None:
    """The host node everything lies on. Raises PlanError when the machine spans several, which it mirrors already."""
    if len(numa.nodes) > 1:
        nodes = ", ".join(str(node.host_node) for node in numa.nodes)
        problem = Problem(
            "cpu.nodes", None, f"it is pinned to the host's memory nodes {nodes}, which it is shown", "leave it out"
        )
        raise PlanError("the memory nodes are settled twice", problems=[problem])
    return numa.nodes[0].host_node


def _placement(cpu: CpuSpec, memory: MemorySpec, facts: Facts, iothreads: int, near: int | None) -> Placement:
    if cpu.pin == "off":
        return Placement()
    from tinamou.tuning.cpu_pinning import pin

    request = PinRequest(
        cpu.count,
        cpus=None if cpu.pin == "auto" else CpuSet.parse(cpu.pin),
        strict=cpu.strict,
        latency=cpu.latency,
        iothreads=iothreads,
        memory=memory.size,
        leased=facts.place.leased,
        near=near,
    )
    return pin(facts.host, request)


def _near(cpu: CpuSpec, facts: Facts) -> int | None:
    """The memory node of the device to sit beside; None where the host has just one. Raises PlanError for no device."""
    node = facts.permits.device_nodes.get(cpu.near)
    if node is None:
        fix = "a PCI address as lspci -D shows it, an interface, or a disk: tinamou host topology lists those with a node"
        problem = Problem("cpu.near", cpu.near, "this host has no such device", fix)
        raise PlanError("there is no device to sit beside", problems=[problem])
    return node if node >= 0 else None


def _page(memory: MemorySpec) -> Size | None:
    return Size.parse(memory.hugepages) if memory.hugepages not in ("off", "auto") else None


def _check_limit(limits: LimitsSpec, ram: Size, overhead: Size) -> None:
    needed = ram + overhead
    if limits.memory is not None and limits.memory < needed:
        reason = (
            f"guest RAM {ram.mib} + QEMU {overhead.mib} = {needed >> 20} MiB: the kernel would end the machine at this limit"
        )
        problem = Problem("limits.memory", str(limits.memory), reason, f"at least {-(-needed >> 20)}M")
        raise PlanError("the machine does not fit below its own limit", problems=[problem])


def _lend(placement: Placement, cpu: CpuSpec) -> tuple[LeaseCpus, ...]:
    if not placement.leased:
        return ()
    asked_by = "spec cpu.pin"
    idle = f", and {placement.idle} idle beside them" if placement.idle else ""
    reason = f"CPUs {CpuSet(placement.leased - placement.idle)} carry its vCPUs{idle}: no other machine is pinned to them"
    reason = "; ".join([reason, *(why.reason for why in placement.whys)])
    return (LeaseCpus(placement.leased, Why(asked_by, reason)),)


def _reserve(pages: HugepagePlan) -> tuple[ReserveHugepages, ...]:
    if pages.page is None:
        return ()
    why = pages.whys[0]
    return tuple(ReserveHugepages(pages.page, pool.node, pool.count, why) for pool in pages.pools)


PART = Part(contribute)
