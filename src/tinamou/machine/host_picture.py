"""Draws the host's CPUs in the terminal, node by node and cache by cache, and marks who runs where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from tinamou.blueprint import Pinning
from tinamou.facts.host import HostFacts, NumaNode
from tinamou.tuning.host_tree import last_level_caches, performance_cpus
from tinamou.units import CpuSet, Size

__all__ = ["picture"]

_NAMES = [letter for letter in ascii_lowercase if letter not in "ivx"]


def picture(
    host: HostFacts,
    pinning: Pinning | None = None,
    leased: Mapping[str, CpuSet] | None = None,
    *,
    devices: Mapping[int, Sequence[str]] | None = None,
    width: int = 100,
) -> str:
    """One block per memory node, one row per last-level cache, one box per core; a legend below.

    ``devices`` are words about devices by memory node, ``width`` the columns of the terminal.
    """
    letters = dict(zip(sorted(leased or {}), [*_NAMES, *["#"] * len(leased or {})], strict=False))
    marks = _marks(host, pinning, leased or {}, letters)
    room = max((len(_box(cpu.siblings, marks, slow=False)) for cpu in host.cpus if cpu.online), default=0)
    lines = [_summary(host)]
    for node in host.nodes:
        lines.append(_heading(host, node))
        lines += _rows(host, node.cpus, marks, room, width)
        lines += [f"  {words}" for words in (devices or {}).get(node.number, ())]
    return "\n".join([*lines, *_legend(host, set(marks.values()), leased or {}, letters)])


def _summary(host: HostFacts) -> str:
    online = [cpu for cpu in host.cpus if cpu.online]
    counts = [
        (len({cpu.package for cpu in online}), "package"),
        (len(host.nodes), "memory node"),
        (len(set(last_level_caches(host).values())), "last-level cache"),
        (len({cpu.siblings for cpu in online}), "core"),
        (len(online), "CPU"),
    ]
    off = len(host.cpus) - len(online)
    return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts) + (f" and {off} offline" if off else "")


def _heading(host: HostFacts, node: NumaNode) -> str:
    packages = sorted({cpu.package for cpu in host.cpus if cpu.number in node.cpus and cpu.online})
    several = len({cpu.package for cpu in host.cpus if cpu.online}) > 1
    where = f" (package {', '.join(map(str, packages))})" if several and packages else ""
    words = [f"{_gib(node.free)} of {_gib(node.memory)} GiB free" if node.memory else "no memory"]
    if not node.cpus:
        words.append("no CPU")
    words += [
        f"{free} of {total} pages of {Size(size)} free" for size, (total, free) in sorted(node.hugepages.items()) if total
    ]
    if len(host.nodes) > 1 and len(node.distances) == len(host.nodes):
        words.append(f"distances {' '.join(map(str, node.distances))}")
    return f"node {node.number}{where}: {', '.join(words)}"


def _gib(size: Size) -> str:
    return f"{size / (1 << 30):.1f}"


def _marks(
    host: HostFacts, pinning: Pinning | None, leased: Mapping[str, CpuSet], letters: Mapping[str, str]
) -> dict[int, str]:
    """CPU → what stands beside its number; a later mark overrides an earlier one."""
    marks = {cpu: letters[name] for name, cpus in leased.items() for cpu in cpus}
    marks |= dict.fromkeys(host.isolated_cpus, "i")
    marks |= dict.fromkeys(host.online_cpus - host.allowed_cpus, "x")
    if pinning:
        marks |= dict.fromkeys(pinning.emulator, "E")
        for cpus in pinning.iothreads.values():
            marks |= {cpu: "EI" if marks.get(cpu) in ("E", "EI") else "I" for cpu in cpus}
        marks |= {cpu: f"v{number}" for number, cpus in enumerate(pinning.vcpus) for cpu in cpus if len(cpus) == 1}
    return marks


def _rows(host: HostFacts, cpus: CpuSet, marks: Mapping[int, str], room: int, width: int) -> list[str]:
    caches, fast = last_level_caches(host), performance_cpus(host)
    names = {cache.cpus: f"L{cache.level} {cache.size}" for cache in host.caches if cache.type != "Instruction"}
    online = [cpu for cpu in host.cpus if cpu.number in cpus and cpu.online]
    heads = {shared: f"  {names.get(shared, 'CPUs')} " for shared in dict.fromkeys(caches[cpu.number] for cpu in online)}
    indent = max(map(len, heads.values()), default=0)
    rows: list[str] = []
    for shared, head in heads.items():
        cores = dict.fromkeys(cpu.siblings for cpu in online if cpu.number in shared)
        boxes = [_box(core, marks, slow=not core <= fast).ljust(room) for core in cores]
        rows += _wrapped(head.ljust(indent), boxes, max((width - indent) // (room + 1), 1))
    off = CpuSet(cpu.number for cpu in host.cpus if cpu.number in cpus and not cpu.online)
    return [*rows, f"  offline {off}"] if off else rows


def _box(core: CpuSet, marks: Mapping[int, str], *, slow: bool) -> str:
    threads = " ".join(f"{cpu}{':' + marks[cpu] if cpu in marks else ''}" for cpu in sorted(core))
    return f"({threads})" if slow else f"[{threads}]"


def _wrapped(head: str, boxes: Sequence[str], most: int) -> list[str]:
    """Rows of equally many boxes, as few rows as ``most`` boxes in each allow; a power of two looks tidier."""
    if len(boxes) > most:
        most = 1 << (most.bit_length() - 1)
    chunks = [boxes[start : start + most] for start in range(0, len(boxes), most)]
    return [((" " * len(head) if number else head) + " ".join(chunk)).rstrip() for number, chunk in enumerate(chunks)]


def _legend(host: HostFacts, marks: set[str], leased: Mapping[str, CpuSet], letters: Mapping[str, str]) -> list[str]:
    kinds = "[core] (efficiency core)" if performance_cpus(host) != host.online_cpus else "[core]"
    used = {mark if mark in ("E", "EI", "I") else mark[0] for mark in marks}
    texts = {"v": "vN virtual CPU N", "E": "E emulator", "I": "I I/O thread", "EI": "EI both", "i": "i isolated"}
    texts |= {"x": "x not allowed here"}
    known = [text for mark, text in texts.items() if mark in used]
    known += [f"{letters[name]} {name} holds {cpus}" for name, cpus in sorted(leased.items())]
    return [f"{kinds}  {', '.join(known)}"] if known else []
