"""Whether QEMU itself answers."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "QEMU's answer"


def check(seen: Observation, host: HostObservation) -> Finding:
    """Its monitor is a matter of milliseconds, whatever the guest does."""
    if seen.silent:
        fix = f"it may be stopped (SIGSTOP) or wait for a disk; if it stays so: tinamou kill {seen.name}"
        return bad(seen.silent, fix)
    return good(f"QEMU says: {seen.state}") if seen.state else unknown("it does not run")
