"""Whether a guest's kernel gave up."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown
from tinamou.monitor.console import panic
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "Guest's kernel"


def check(seen: Observation, host: HostObservation) -> Finding:
    """QEMU is told by the guest; one without that device still says it on its console."""
    said = panic(seen.console)
    if seen.state == "guest-panicked" or (said and seen.state == "running"):
        fix = f"read what came before: tinamou logs {seen.name}; then tinamou reset {seen.name}, or kill it"
        return bad(f"it panicked{f': {said}' if said else ', and printed nothing'}", fix)
    if not seen.state:
        return unknown(seen.silent)
    return good("it did not panic")
