"""Whether a process may open enough files for machines with many disks, queues and forks."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.doctor.limits import soft_limit

TITLE = "Limit of open files"


def check(seen: Inspection) -> Finding:
    """QEMU opens a few dozen, more with many queues; 1024 is the usual limit and suffices for one machine."""
    limit = soft_limit(seen.files, "Max open files")
    if limit is None:
        return unknown("/proc/self/limits cannot be read")
    if 0 <= limit < 1024:
        return warning(f"{limit}", "raise nofile in /etc/security/limits.d, then log in again")
    return good("unlimited" if limit < 0 else str(limit))
