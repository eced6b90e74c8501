"""Draws the host's CPUs in the terminal, node by node and cache by cache, and marks who runs where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinamou.blueprint import Pinning
from tinamou.facts.host import HostFacts
from tinamou.tuning.host_tree import last_level_caches, performance_cpus
from tinamou.units import CpuSet

__all__ = ["picture"]

_PER_LINE = 16


def picture(host: HostFacts, pinning: Pinning | None = None, lent: Mapping[str, CpuSet] | None = None) -> str:
    """One block per memory node, one row per last-level cache, one box per core; a legend below."""
    marks = _marks(host, pinning, lent or {})
    lines: list[str] = []
    for node in host.nodes:
        sizes = ", ".join(f"{free}/{total}×{size >> 20 or 1}M" for size, (total, free) in node.hugepages.items() if total)
        pages = f", huge pages {sizes}" if sizes else ""
        lines.append(f"node {node.number}  {node.memory.mib} MiB, {node.free.mib} free{pages}")
        lines += _rows(host, node.cpus, marks)
    return "\n".join([*lines, *_legend(marks.values(), lent or {})])


def _marks(host: HostFacts, pinning: Pinning | None, lent: Mapping[str, CpuSet]) -> dict[int, str]:
    """CPU → what stands beside its number; a later mark overrides an earlier one."""
    marks = {cpu: "#" for cpus in lent.values() for cpu in cpus}
    marks |= dict.fromkeys(host.isolated_cpus, "i")
    marks |= dict.fromkeys(host.online_cpus - host.allowed_cpus, "x")
    marks |= {cpu.number: "-" for cpu in host.cpus if not cpu.online}
    if pinning:
        marks |= dict.fromkeys(pinning.emulator, "E")
        marks |= {cpu: "I" for cpus in pinning.iothreads.values() for cpu in cpus}
        marks |= {cpu: f"v{number}" for number, cpus in enumerate(pinning.vcpus) for cpu in cpus if len(cpus) == 1}
    return marks


def _rows(host: HostFacts, cpus: CpuSet, marks: Mapping[int, str]) -> list[str]:
    caches, fast = last_level_caches(host), performance_cpus(host)
    online = [cpu for cpu in host.cpus if cpu.number in cpus and cpu.online]
    rows: list[str] = []
    for shared in dict.fromkeys(caches[cpu.number] for cpu in online):
        cores = dict.fromkeys(cpu.siblings for cpu in online if cpu.number in shared)
        boxes = [_box(core, marks, slow=not core <= fast) for core in cores]
        rows += _wrapped(f"  cache {shared} ", boxes)
    off = CpuSet(cpu.number for cpu in host.cpus if cpu.number in cpus and not cpu.online)
    return [*rows, f"  offline {off}"] if off else rows


def _box(core: CpuSet, marks: Mapping[int, str], *, slow: bool) -> str:
    threads = " ".join(f"{cpu}{':' + marks[cpu] if cpu in marks else ''}" for cpu in sorted(core))
    return f"({threads})" if slow else f"[{threads}]"


def _wrapped(head: str, boxes: Sequence[str]) -> list[str]:
    chunks = [boxes[start : start + _PER_LINE] for start in range(0, len(boxes), _PER_LINE)]
    return [(head if not number else " " * len(head)) + " ".join(chunk) for number, chunk in enumerate(chunks)]


def _legend(marks: object, lent: Mapping[str, CpuSet]) -> list[str]:
    assert not isinstance(marks, str)
    used = {mark[0] for mark in marks}  # type: ignore[attr-defined]
    texts = {"v": "vN virtual CPU N", "E": "E emulator", "I": "I I/O thread", "i": "i isolated", "x": "x not allowed here"}
    known = [text for mark, text in texts.items() if mark in used]
    known += [f"# {name} holds {cpus}" for name, cpus in sorted(lent.items())]
    return [f"[core] (efficiency core)  {', '.join(known)}"] if known else []
