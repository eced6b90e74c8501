"""Examines one machine: whether it runs as it was planned, and what its own settings risk."""

from __future__ import annotations

import re

from tinamou.doctor.finding import Finding, bad, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.state.record import Record
from tinamou.system import threads
from tinamou.units import CpuSet

__all__ = ["examine_machine"]

_VCPU = re.compile(r"CPU (\d+)/")


def examine_machine(record: Record, seen: Inspection) -> list[Finding]:
    """Findings about one machine, in the order of their weight."""
    titles = {name: f"{record.name}: {name.replace('_', ' ')}" for name, _ in _CHECKS}
    return [check(record, seen).named(f"machine_{name}", titles[name]) for name, check in _CHECKS]


def _accelerator(record: Record, seen: Inspection) -> Finding:
    if not record.accel:
        return unknown("it was never started")
    if record.accel != "tcg":
        return good(f"runs on {record.accel}")
    facts = seen.accel()
    if facts is not None and facts.arch == record.arch and (best := facts.best()) and best.accel != "tcg":
        return warning(f"is emulated, though {best.accel} works here", "stop it, and start it with accel = auto")
    return info("is emulated: nothing faster works for its architecture here", "see the accelerator trial")


def _pinning(record: Record, seen: Inspection) -> Finding:
    if not record.running:
        return unknown("it is not running")
    wanted = [CpuSet.parse(text) for text in record.pinning]
    if not wanted:
        return info("its virtual CPUs run where the kernel puts them", 'pin = "auto" gives each a CPU of its own')
    found = {int(m[1]): number for number, name in threads.names(record.pid).items() if (m := _VCPU.match(name))}
    if len(found) != len(wanted):
        return info(f"{len(found)} threads carry {len(wanted)} virtual CPUs", "emulation here uses one thread for all")
    now = {index: threads.affinity(number) for index, number in found.items()}
    wrong = [f"vCPU {i} runs on {now[i]}, planned {wanted[i]}" for i in sorted(now) if now[i] != wanted[i]]
    if wrong:
        return bad("; ".join(wrong), "someone else moved them: stop the machine and start it again")
    return good(", ".join(f"vCPU {index} on {cpus}" for index, cpus in sorted(now.items())))


def _disk_cache(record: Record, seen: Inspection) -> Finding:
    disks = record.spec.get("disk", [])
    unsafe = [str(n) for n, disk in enumerate(disks) if isinstance(disk, dict) and disk.get("cache") == "unsafe"]
    if unsafe:
        return warning(f"disk {', '.join(unsafe)}: cache = unsafe loses what the guest believes written", "use writeback")
    return good("what the guest flushes reaches the disk")


def _merging(record: Record, seen: Inspection) -> Finding:
    if record.spec.get("memory", {}).get("merge"):
        return warning("its memory may be merged with that of other machines", "set memory.merge = false")
    return good("its memory is merged with no other machine's")


_CHECKS = (("accelerator", _accelerator), ("pinning", _pinning), ("disk_cache", _disk_cache), ("memory_merging", _merging))
