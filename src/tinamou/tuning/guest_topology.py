"""Mirrors the host CPUs a guest was given into the sockets, dies, cores and threads it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from tinamou.blueprint import Why
from tinamou.facts.host import HostFacts
from tinamou.tuning.host_tree import clusters_of, last_level_caches
from tinamou.tuning.placement import GuestTopology

__all__ = ["mirror"]


def mirror(
    host: HostFacts, cpus: Sequence[int], threads: int
) -> tuple[GuestTopology, tuple[tuple[int, tuple[int, ...]], ...], tuple[Why, ...]]:
    """Topology and ``(host node, its vCPUs)`` for vCPUs on ``cpus``, in vCPU order, ``threads`` of them per core.

    A socket never spans memory nodes: with unequal shares it is the greatest part that divides all of them. Dies stand for
    last-level caches, which QEMU shares per die, where each holds equally many vCPUs; else the guest sees one.
    """
    node_of = {cpu.number: cpu.node for cpu in host.cpus}
    caches = last_level_caches(host)
    runs = _runs([node_of[cpu] for cpu in cpus])
    socket = gcd(*(len(members) for _, members in runs))
    if len(runs) > 1 and socket % threads:
        socket = threads
    parts = _runs([min(caches[cpu]) for cpu in cpus])
    sizes = {len(members) for _, members in parts}
    die = sizes.pop() if len(sizes) == 1 else socket
    if die > socket or socket % die or die % threads:
        die = socket
    cluster, shared_l2 = _cluster(host, cpus, die, threads)
    topology = GuestTopology(
        len(cpus) // socket, socket // die, die // cluster, cluster // threads, threads, shared_l2 and cluster < die
    )
    return topology, tuple((number, members) for number, members in runs), _said(topology, len(runs), len(parts))


def _cluster(host: HostFacts, cpus: Sequence[int], die: int, threads: int) -> tuple[int, bool]:
    """How many vCPUs share a cluster of the host (a die where it tells nothing), and whether by a level 2 cache."""
    groups = clusters_of(host)
    parts = _runs([min(groups.get(cpu, {cpu})) for cpu in cpus])
    sizes = {len(members) for _, members in parts}
    size = sizes.pop() if len(sizes) == 1 else die
    if size <= threads or die % size or size % threads:
        return die, False
    caches = [cache.cpus for cache in host.caches if cache.level == 2 and cache.type != "Instruction"]
    return size, all(any({cpus[member] for member in members} <= cache for cache in caches) for _, members in parts)


def _runs(labels: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    found: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label, []).append(index)
    return [(label, tuple(members)) for label, members in found.items()]


def _said(topology: GuestTopology, nodes: int, caches: int) -> tuple[Why, ...]:
    names = {"socket": topology.sockets, "die": topology.dies, "cluster": topology.clusters}
    counts = {**names, "core": topology.cores, "thread": topology.threads}
    shape = " × ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if name != "cluster" or n > 1)
    where = f"{nodes} memory node{'s' if nodes > 1 else ''} and {caches} last-level cache{'s' if caches > 1 else ''}"
    reasons = [f"the guest is shown {shape}, as it lies on {where} of the host"]
    shown = topology.sockets * topology.dies
    if shown != caches:
        reasons.append(f"the guest sees {shown} last-level caches where it runs on {caches}, as the shares differ")
    return tuple(Why("host", reason) for reason in reasons)
