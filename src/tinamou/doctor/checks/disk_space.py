"""Whether there is room for machines' disks."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Disk space"


def check(seen: Inspection) -> Finding:
    """Free bytes and free inodes where machines are kept."""
    folder = seen.folder()
    if folder is None:
        return unknown("the folder of the machines cannot be examined")
    shown = f"{folder.free.mib} of {folder.total.mib} MiB free below {folder.path} ({folder.kind})"
    if folder.free < 256 << 20:
        return bad(shown, "make room: tinamou rm, tinamou image rm")
    if folder.free < 4 << 30 or 0 < folder.inodes_free < 10000:
        return warning(f"{shown}, {folder.inodes_free} inodes", "make room: tinamou rm, tinamou image rm")
    return good(shown)
