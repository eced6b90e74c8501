"""The RAM backend: the only place that decides what guest memory is made of."""

from __future__ import annotations

from itertools import groupby

from tinamou.blueprint import Contribution, Element, Flag, HandOver, Value, Why
from tinamou.parts import pmem
from tinamou.parts.memory import MemorySpec
from tinamou.parts.protocol import Part, Resolved, SharedMemory
from tinamou.tuning.numa import GuestNode
from tinamou.tuning.resources import Resources

__all__ = ["PART", "RAM", "contribute"]

_PREALLOC_THREADS = 16

RAM = "ram0"
"""The backend's id, which also names the memory in a saved state."""


def contribute(resolved: Resolved) -> Contribution:
    """One memory backend object per guest node, ``-m``, and the machine's link to them."""
    spec, nodes = resolved.spec.memory, resolved.resources.numa.nodes
    file = resolved.file("ram")
    if spec.forkable:
        backends: tuple[Element, ...] = (_forkable(spec, file, resolved.facts.host.holding),)
    else:
        backends = tuple(_backend(f"ram{i}", node, resolved) for i, node in enumerate(nodes))
    size = _size(resolved)
    merge = Flag("machine", _merge_why(spec), options={"mem-merge": spec.merge})
    if len(nodes) > 1:
        return Contribution(elements=backends, flags=(size, merge, *_numa(resolved.resources)))
    why = Why("tuning memory", "guest memory is the backend object ram0")
    link = Flag("machine", why, options={"memory-backend": "ram0"})
    steps = tuple(HandOver(file, "memory", element.why, int(spec.size)) for element in backends) if spec.forkable else ()
    return Contribution(elements=backends, flags=(size, link, merge), steps=steps)


def _size(resolved: Resolved) -> Flag:
    """What the guest has, and the addresses beyond that its persistent memory lies at."""
    size, room = resolved.spec.memory.size, pmem.room(resolved)
    if not room:
        return Flag("m", Why("spec memory.size", "the size the guest sees"), f"{size.mib}M")
    why = Why("spec memory.size", "the size the guest sees; there are addresses beyond it for pmem")
    return Flag("m", why, f"{size.mib}M", {"maxmem": f"{size.mib + room.mib}M"})


def _forkable(spec: MemorySpec, file: str, holding: str) -> Element:
    """A file backend over nameless memory: only a file's content is left out of a saved state on every version of QEMU.

    ``holding`` says why it cannot be frozen where it lies.
    """
    how = (
        f"a checkpoint copies while it runs: {holding}"
        if holding
        else "a checkpoint freezes where it lies, for forks to share"
    )
    why = Why("spec memory.forkable", f"{spec.size} of guest memory that {how}")
    props: dict[str, Value] = {"qom-type": "memory-backend-file", "id": RAM, "size": int(spec.size), "share": True}
    return Element("object", {**props, "mem-path": file, "merge": spec.merge}, why)


def _merge_why(spec: MemorySpec) -> Why:
    if spec.merge:
        return Why("spec memory.merge", "the kernel may merge equal pages of this and other machines")
    return Why("default", "no page is shared with other machines: the timing of a write would tell what they hold")


def _backend(name: str, node: GuestNode, resolved: Resolved) -> Element:
    """Anonymous memory; a memfd where another process must see it, or where it lies on huge pages."""
    shared = next((need for need in resolved.needs if isinstance(need, SharedMemory)), None)
    spec, pages, numa = resolved.spec.memory, resolved.resources.pages, resolved.resources.numa
    why = shared.why if shared else Why("spec memory.size", f"{node.memory} of guest memory, private to this machine")
    kind = "memory-backend-memfd" if shared or pages.page else "memory-backend-ram"
    props: dict[str, Value] = {"qom-type": kind, "id": name, "size": int(node.memory), "share": bool(shared or pages.page)}
    props["merge"] = spec.merge
    if pages.page:
        why = pages.whys[0]
        props |= {"hugetlb": True, "hugetlbsize": int(pages.page), "prealloc": True}
        threads = min(len(node.vcpus), _PREALLOC_THREADS)
        if threads > 1 and resolved.facts.qemu.has(f"property:{kind}.prealloc-threads"):
            props["prealloc-threads"] = threads
    if node.host_node is not None:
        reasons = "; ".join(w.reason for w in numa.whys) or f"memory near node {node.host_node}"
        why = Why(why.asked_by, f"{why.reason}; {reasons}")
        props |= {"host-nodes": [node.host_node], "policy": node.policy}
    return Element("object", props, why)


def _numa(resources: Resources) -> tuple[Flag, ...]:
    """``-numa`` options: the guest's nodes, their vCPUs and memory, and the host's distances between them."""
    lies = Why("host", "the guest lies on several memory nodes of the host and must know which memory is near which CPU")
    why = next((w for w in resources.numa.whys if w.asked_by.startswith("spec")), lies)
    flags = []
    for index, node in enumerate(resources.numa.nodes):
        cpus = "".join(f",cpus={run}" for run in _runs(node.vcpus))
        flags.append(Flag("numa", why, f"node,nodeid={index},memdev=ram{index}{cpus}"))
    far = Why("host", "distances as they are on the host")
    for source, row in enumerate(resources.numa.distances):
        for target, value in enumerate(row):
            if source != target:
                flags.append(Flag("numa", far, "dist", {"src": source, "dst": target, "val": value}))
    return tuple(flags)


def _runs(numbers: tuple[int, ...]) -> list[str]:
    """``(0, 1, 2, 5)`` → ``["0-2", "5"]``."""
    ordered = sorted(numbers)
    groups = ([n for _, n in run] for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]))
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in groups]


PART = Part(contribute)
