"""Whether disk requests can be queued with the kernel instead of occupying a thread each."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Disk requests (aio)"


def check(seen: Inspection) -> Finding:
    """A ring and a context are made for a moment, as QEMU would."""
    permits = seen.permits()
    if permits is None or permits.io_uring is None or permits.native is None:
        return unknown("nothing was tried")
    ways = {"io_uring": permits.io_uring, "native": permits.native}
    shown = "; ".join(f"{way}: {reason or 'works'}" for way, reason in ways.items())
    if any(ways.values()):
        return info(shown, "sysctl kernel.io_uring_disabled=0 fs.aio-max-nr=1048576; without them threads do the work")
    return good(shown)
