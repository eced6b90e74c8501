"""Whether a disk failed, or had no room for what the guest wrote."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown
from tinamou.monitor.observation import DiskObservation, HostObservation, Observation

TITLE = "Disk requests"


def check(seen: Observation, host: HostObservation) -> Finding:
    """QEMU stops a machine whose disk is full, and tells of requests that failed (source: QMP reference, io-status)."""
    if not seen.state:
        return unknown(seen.silent or "it does not run")
    failed = [disk for disk in seen.disks if disk.status not in ("", "ok")]
    full = [disk for disk in failed if disk.status == "nospace"]
    told = "; ".join(seen.errors)
    if full:
        shown = f"it stands still: no space left for {_named(full)}"
        return bad(shown, f"make room there, then tinamou resume {seen.name}: the guest notices nothing")
    if failed or seen.state == "io-error":
        stands = "it stands still: " if seen.state == "io-error" else ""
        shown = f"{stands}requests of {_named(failed) or 'a disk'} failed on the host{f' ({told})' if told else ''}"
        return bad(shown, f"look at the host's disk (dmesg), then tinamou resume {seen.name}")
    if told:
        shown = f"requests failed, which the guest was told: {told}"
        return bad(shown, "look at the host's disk (dmesg) and at the guest's log")
    return good("no request failed")


def _named(disks: list[DiskObservation]) -> str:
    return ", ".join(f"{disk.name} ({disk.files[0]})" if disk.files else disk.name for disk in disks)
