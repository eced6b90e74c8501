"""Whether a machine's QEMU was ended by the host's kernel, for lack of memory or because it crashed."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "QEMU's life"


def check(seen: Observation, host: HostObservation) -> Finding:
    """Found out when its end was noticed; it is said until the machine is started again or removed."""
    if seen.ended:
        return bad(seen.ended, f"{_remedy(seen)}; then tinamou start {seen.name}")
    return good("it lives") if seen.running else unknown("it does not run, and nothing tells why it ended")


def _remedy(seen: Observation) -> str:
    if "limits.memory" in seen.ended:
        return "raise limits.memory"
    if "out of memory" in seen.ended:
        return "give machines less memory, or the host more"
    return f"tinamou logs {seen.name} --qemu may tell more"
