"""Whether virtual CPUs can have real-time priority."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Real-time priority"


def check(seen: Inspection) -> Finding:
    """The lowest priority is taken for a moment; machines with limits run in a group of their own, where it may differ."""
    permits = seen.permits()
    if permits is None or permits.real_time is None:
        return unknown("nothing was tried")
    if permits.real_time:
        return info(permits.real_time, "run as root, or raise rtprio in /etc/security/limits.d, then log in again")
    if permits.real_time_in_groups:
        return info(
            f"may be given (cpu.realtime), but not to machines with limits: {permits.real_time_in_groups}", "choose one"
        )
    return good("may be given (cpu.realtime)")
