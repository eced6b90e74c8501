"""Whether a guest has given all it may while the host still needs memory."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "Balloon"
_NEAR = 1 << 20


def check(seen: Observation, host: HostObservation) -> Finding:
    """Only a machine with a floor has given anything."""
    if seen.floor is None:
        return good("it has no memory.floor: its memory is left alone")
    if seen.memory is None or seen.memory.why or host.short is None:
        return unknown((seen.memory.why if seen.memory else "") or "the host's memory is not known")
    memory = seen.memory
    shown = f"the guest holds {memory.holds.short} of {memory.size.short}, its floor is {seen.floor.short}"
    if host.short and memory.holds <= seen.floor + _NEAR:
        fix = "stop a machine, lower memory.floor, or put more memory into the host"
        return warning(f"{shown}: it can give no more, and the host is short", fix)
    return good(shown)
