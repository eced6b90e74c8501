"""Whether a guest has memory left."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown, warning
from tinamou.monitor.observation import HostObservation, Observation
from tinamou.units import Size

TITLE = "Guest memory"
_LITTLE, _NOTHING = 10, 4
"""Per cent of what the guest holds that is still available."""


def check(seen: Observation, host: HostObservation) -> Finding:
    """What its kernel calls available: what programs can still have without swapping."""
    memory = seen.memory
    if memory is None or memory.available is None:
        return unknown(memory.why if memory else "QEMU does not answer")
    shown = f"{memory.available.short} of {memory.holds.short} available in the guest"
    taken = Size(memory.size - memory.holds)
    if taken:
        shown += f", its balloon holds {taken.short} more"
    share = 100 * memory.available / max(memory.holds, 1)
    if share >= _LITTLE:
        return good(shown)
    give = f"tinamou watch --balance gives it back, or raise memory.floor ({seen.floor})" if taken and seen.floor else ""
    fix = give or "end something in the guest, or start the machine with more memory"
    return bad(f"{shown}: nearly exhausted", fix) if share < _NOTHING else warning(f"{shown}: running short", fix)
