"""Decides which memory nodes the guest is shown, and on which host nodes its memory lies."""

from __future__ import annotations

from tinamou.blueprint import Note, Why
from tinamou.errors import PlanError
from tinamou.facts.host import HostFacts
from tinamou.late import dataclass
from tinamou.tuning.placement import Placement
from tinamou.units import Size

__all__ = ["GuestNode", "NumaPlan", "equal_nodes", "memory_nodes"]

_GRANULE = Size(8 << 20)


@dataclass(frozen=True)
class GuestNode:
    """One memory node of the guest: its vCPUs, its memory, and the host node it is bound to (None: not bound)."""

    vcpus: tuple[int, ...]
    memory: Size
    host_node: int | None = None
    policy: str = "bind"


@dataclass(frozen=True)
class NumaPlan:
    """The guest's memory, node by node; ``distances[i][j]`` mirrors the host (empty with one node)."""

    nodes: tuple[GuestNode, ...]
    distances: tuple[tuple[int, ...], ...] = ()
    whys: tuple[Why, ...] = ()
    notes: tuple[Note, ...] = ()


def memory_nodes(
    host: HostFacts, placement: Placement, count: int, memory: Size, page: Size | None = None, *, strict: bool = False
) -> NumaPlan:
    """Splits ``memory`` over the nodes the vCPUs were placed on, in whole pages of ``page`` bytes.

    Raises PlanError under ``strict`` when a node has less free memory than its share; else such a share only prefers its
    node. Without a placement, or on a host with one node, nothing is bound. CPUs of a node without memory, or without
    memory this process may use, get that of the nearest node.
    """
    everyone = tuple(range(count))
    homes = _homes(host)
    if not placement.nodes or len([node for node in host.nodes if node.memory]) < 2 or not homes:
        return NumaPlan((GuestNode(everyone, memory),))
    shares = _split(memory, [len(vcpus) for _, vcpus in placement.nodes], max(page or _GRANULE, _GRANULE))
    nearest = [(min(homes, key=lambda home: (host.distance(n, home), home)), vcpus) for n, vcpus in placement.nodes]
    away = [n for (n, _), (home, _) in zip(placement.nodes, nearest, strict=True) if n != home]
    pairs = list(zip(nearest, shares, strict=True))
    short = [(number, share) for (number, _), share in pairs if share > _room(host, number, page)]
    if short and strict:
        raise PlanError(
            "the guest's memory does not fit beside its CPUs",
            why="; ".join(
                f"memory node {n} has {_room(host, n, page).mib} MiB, {share.mib} MiB wanted" for n, share in short
            ),
            fix="ask for less memory, let it span more nodes, or set cpu.strict = false",
        )
    missing = {number for number, _ in short}
    nodes = tuple(
        GuestNode(vcpus, share, number, "preferred" if number in missing else "bind") for (number, vcpus), share in pairs
    )
    notes = (*map(_note_away, away), *(_note(host, n, share, page) for n, share in short))
    return NumaPlan(nodes, _distances(host, nodes), _whys(nodes), notes)


def _homes(host: HostFacts) -> list[int]:
    """The nodes that have memory this process may use (cpuset.mems)."""
    return [
        node.number for node in host.nodes if node.memory and (not host.allowed_nodes or node.number in host.allowed_nodes)
    ]


def _note_away(number: int) -> Note:
    why = Why("host", f"memory node {number} has CPUs, but no memory this process may use")
    return Note("warning", f"the memory of virtual CPUs on node {number} lies on the nearest node that has some", why)


def equal_nodes(count: int, memory: Size, nodes: int, page: Size | None, host_node: int | None) -> NumaPlan:
    """Nodes the user asked for: CPUs and memory in equal parts, all on ``host_node`` (None: anywhere)."""
    each = count // nodes
    shares = _split(memory, [1] * nodes, max(page or _GRANULE, _GRANULE))
    parts = (tuple(range(number * each, (number + 1) * each)) for number in range(nodes))
    why = Why("spec cpu.nodes", f"{nodes} memory nodes were asked for")
    return NumaPlan(tuple(GuestNode(cpus, share, host_node) for cpus, share in zip(parts, shares, strict=True)), whys=(why,))


def _room(host: HostFacts, number: int, page: Size | None) -> Size:
    node = host.node(number)
    if node is None:
        return Size(0)
    return Size(node.free + (page or 0) * node.hugepages.get(page or 0, (0, 0))[1])


def _split(memory: Size, weights: list[int], granule: Size) -> list[Size]:
    """Parts in proportion to ``weights`` in whole granules; what is left over goes to the first."""
    parts = [memory * weight // sum(weights) // granule * granule for weight in weights]
    parts[0] += memory - sum(parts)
    return [Size(part) for part in parts]


def _distances(host: HostFacts, nodes: tuple[GuestNode, ...]) -> tuple[tuple[int, ...], ...]:
    numbers = [node.host_node for node in nodes if node.host_node is not None]
    if len(numbers) < 2:
        return ()
    return tuple(tuple(host.distance(one, other) for other in numbers) for one in numbers)


def _whys(nodes: tuple[GuestNode, ...]) -> tuple[Why, ...]:
    shares = ", ".join(f"{node.memory.mib} MiB on node {node.host_node}" for node in nodes if node.policy == "bind")
    return (Why("host", f"memory beside the CPUs that use it: {shares}"),) if shares else ()


def _note(host: HostFacts, number: int, share: Size, page: Size | None) -> Note:
    room = _room(host, number, page)
    why = Why("host", f"node {number} has {room.mib} MiB free of {share.mib} MiB wanted")
    return Note("warning", f"some of the guest's memory will lie away from its CPUs on memory node {number}", why)
