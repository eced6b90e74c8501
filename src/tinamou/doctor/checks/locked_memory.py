"""Whether guest memory may be locked, which device passthrough and memory locking need."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection
from tinamou.doctor.limits import soft_limit
from tinamou.units import Size

TITLE = "Limit of locked memory"


def check(seen: Inspection) -> Finding:
    """Root is not bound by it; others need as much as the guest has memory, plus 1 GiB, to pass a device through."""
    limit = soft_limit(seen.files, "Max locked memory")
    if limit is None:
        return unknown("/proc/self/limits cannot be read")
    shown = "unlimited" if limit < 0 else str(Size(limit))
    if limit < 0 or seen.facts.is_root:
        return good(f"{shown}{' (does not bind root)' if limit >= 0 else ''}")
    if limit >= seen.facts.memory:
        return good(shown)
    return info(f"{shown} for this user", "for device passthrough: set memlock in /etc/security/limits.d, then log in again")
