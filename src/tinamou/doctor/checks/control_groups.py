"""Whether machines can be limited by control groups."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Control groups"
_NEEDED = ("cpu", "memory", "io", "pids")


def check(seen: Inspection) -> Finding:
    """Which hierarchy has the controllers for limits (blkio is io in version 1), and whether this user may make groups."""
    found, grouping = dict(seen.facts.cgroups), seen.facts.grouping
    if not found:
        return unknown("no control group hierarchy is mounted")
    if not grouping.by:
        return info(
            f"no machine has one, and nothing bounds what its QEMU takes of the host: {grouping.fault}",
            "run as root, or log in where systemd runs for you (loginctl enable-linger, dbus-user-session)",
        )
    if "blkio" in found:
        found.setdefault("io", found["blkio"])
    shown = ", ".join(f"{name} {found[name]}" for name in (*_NEEDED, "cpuset", "hugetlb") if name in found)
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        return info(
            f"{shown or 'none'}; without {', '.join(missing)}",
            "mount cgroup version 2 (systemd does), or leave these limits out",
        )
    if any(found[name] == "v1" for name in _NEEDED):
        return info(
            f"{shown}: version 1 works, version 2 limits buffered writes and swap as well",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    return good(shown)
