"""How much memory machines can be given."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Memory"
_LITTLE = 512 << 20


def check(seen: Inspection) -> Finding:
    """What is available now, below any limit of a control group."""
    facts = seen.facts
    if not facts.memory:
        return unknown("/proc/meminfo cannot be read")
    limit = f", limit of the control group {facts.memory_limit.mib} MiB" if facts.memory_limit is not None else ""
    shown = f"{facts.memory_available.mib} of {facts.memory.mib} MiB available{limit}"
    if facts.memory_available < _LITTLE:
        return warning(shown, "stop something, or raise the control group's limit")
    return good(shown)
