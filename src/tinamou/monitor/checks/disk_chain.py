"""Whether a disk rests on so many files that every start and snapshot takes longer."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "Chains of disks"
_DEEP = 32
"""Snapshots flatten past 16 by themselves; what is twice as deep was told not to, or could not."""


def check(seen: Observation, host: HostObservation) -> Finding:
    """The files QEMU reads each disk through."""
    if not seen.state:
        return unknown(seen.silent or "it does not run")
    depths = {disk.name: len(disk.files) for disk in seen.disks}
    deep = {name: depth for name, depth in depths.items() if depth > _DEEP}
    if deep:
        shown = ", ".join(f"{name} rests on {depth} files" for name, depth in deep.items())
        return warning(shown, f"tinamou snapshot flatten {seen.name}")
    return good(f"at most {max(depths.values(), default=0)} files")
