"""Whether cores run several hardware threads, which guests of different owners should not share."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Simultaneous multithreading"


def check(seen: Inspection) -> Finding:
    """Reads the kernel's switch; without one, counts sibling threads."""
    state = seen.files.read("/sys/devices/system/cpu/smt/active")
    shared = any(len(cpu.siblings) > 1 for cpu in seen.facts.cpus)
    if state is None and not seen.facts.cpus:
        return unknown("neither /sys/devices/system/cpu/smt nor any CPU topology is there")
    if state == "1" or (state is None and shared):
        text = "give machines that do not trust each other whole cores (pin with latency), or switch it off: nosmt"
        return info("on: two vCPUs on one core share its caches and its side channels", text)
    return good("off, or the processor has one thread per core")
