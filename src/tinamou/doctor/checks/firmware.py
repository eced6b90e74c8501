"""Whether UEFI firmware for guests is installed and its files are there."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Guest firmware"


def check(seen: Inspection) -> Finding:
    """Reads the descriptors QEMU packages install, and whether the files they name are there."""
    scan = seen.firmware()
    if scan is None:
        return unknown("the firmware descriptors were not read")
    own = any(arch == seen.facts.arch for f in scan.firmware for arch, _ in f.targets)
    if scan.notes:
        tell = info if own else bad
        return tell("; ".join(scan.notes), "reinstall the firmware package the descriptor belongs to, or do without it")
    if not scan.firmware:
        return warning("no firmware descriptor: machines can boot with BIOS or a kernel only", "apt install ovmf")
    arches = sorted({arch for f in scan.firmware for arch, _ in f.targets})
    return good(f"{len(scan.firmware)} kinds of firmware for {', '.join(arches)}")
