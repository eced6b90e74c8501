"""The host's memory and who holds it (source: proc_meminfo(5), Documentation/accounting/psi.rst)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tinamou.monitor.observation import HostObservation, Observation
from tinamou.probe import cgroup
from tinamou.probe.topology import kib
from tinamou.system.rooted import Rooted
from tinamou.units import Size

__all__ = ["look_at_host"]

_FULL = re.compile(r"^full avg10=([\d.]+)", re.MULTILINE)


def look_at_host(files: Rooted, machines: Mapping[str, Observation]) -> HostObservation:
    """Memory within any limit of a control group this process is in."""
    text, limits = files.read("/proc/meminfo") or "", cgroup.limits(files)
    total, available = kib(text, "MemTotal") or Size(0), kib(text, "MemAvailable") or Size(0)
    if limits.memory_left is not None:
        available = min(available, limits.memory_left)
    pressed = _FULL.search(files.read("/proc/pressure/memory") or "")
    held = {name: one.held.rss for name, one in machines.items() if one.held}
    promised = {name: _promised(one) for name, one in machines.items() if one.held}
    return HostObservation(total, available, float(pressed[1]) if pressed else None, held, promised)


def _promised(one: Observation) -> Size:
    """What its guest may still touch for the first time: all it holds that QEMU does not have yet."""
    holds = one.memory.holds if one.memory else 0
    return Size(max(0, holds - one.held.rss)) if one.held else Size(0)
