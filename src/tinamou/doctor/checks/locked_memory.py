"""Whether guest memory may be locked, which device passthrough and memory locking need."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection
from tinamou.doctor.limits import soft_limit
from tinamou.parts.passthrough import HOW_TO_LOCK
from tinamou.system.holding import may
from tinamou.units import Size

TITLE = "Limit of locked memory"
_CAP_SYS_RESOURCE = 24


def check(seen: Inspection) -> Finding:
    """A guest that is given a device needs its memory and 1 GiB; root raises the limit for it, where root may."""
    limit = soft_limit(seen.files, "Max locked memory")
    if limit is None:
        return unknown("/proc/self/limits cannot be read")
    shown = "unlimited" if limit < 0 else str(Size(limit))
    if limit < 0 or limit >= seen.facts.memory:
        return good(shown)
    if not seen.facts.is_root:
        return info(f"{shown} for this user", f"to give devices to guests: {HOW_TO_LOCK}")
    if may(seen.files.read("/proc/self/status") or "", _CAP_SYS_RESOURCE):
        return good(f"{shown}, raised for machines that need more")
    return info(f"{shown}, and root may not raise it here", f"to give devices to guests: {HOW_TO_LOCK}")
