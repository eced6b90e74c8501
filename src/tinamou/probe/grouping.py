"""Finds out who makes control groups for machines: this process by itself, or the systemd of the user it belongs to.

Source: cgroup-v2.rst (delegation, no internal processes), systemd: docs/CONTROL_GROUP_INTERFACE.md.
"""

from __future__ import annotations

from tinamou.facts.host import Grouping
from tinamou.probe.cgroup import Hierarchy, hierarchies
from tinamou.system.rooted import Rooted
from tinamou.system.scopes import bus_of

__all__ = ["NEEDED", "probe"]

NEEDED = ("memory", "pids")
"""What every machine's group has."""


def probe(host: Rooted, uid: int, busctl: bool) -> Grouping:
    """What holds for a user of that number; ``busctl``: that tool is installed. Nothing is tried, only looked at."""
    found = hierarchies(host)
    known = {_name(name): one for one in reversed(found) for name in one.controllers}
    missing = [name for name in NEEDED if name not in known]
    if missing:
        return Grouping(fault=f"no control group hierarchy has the controller {', '.join(missing)}")
    usable = frozenset(name for name, one in known.items() if not _fault(host, one, uid))
    huge = "memory_hugetlb_accounting" in known["memory"].options
    if usable.issuperset(NEEDED):
        return Grouping("kernel", usable, "", huge)
    fault = next(fault for name in NEEDED if (fault := _fault(host, known[name], uid)))
    if uid == 0:
        return Grouping(fault=fault)
    delegated, lack = _of_manager(host, uid, busctl)
    return Grouping(fault=f"{fault}; {lack}") if lack else Grouping("systemd", delegated, "", huge)


def _name(controller: str) -> str:
    return "io" if controller == "blkio" else controller


def _fault(host: Rooted, hierarchy: Hierarchy, uid: int) -> str:
    """Why no group can be made at the root of a hierarchy; empty where one can."""
    if not host.writable(hierarchy.mount) if host.real else uid:
        return f"this user may not make groups in {hierarchy.mount}"
    if hierarchy.version == "v1" or not host.exists(f"{hierarchy.mount}/cgroup.type"):
        return ""
    enabled = (host.read(f"{hierarchy.mount}/cgroup.subtree_control") or "").split()
    if not set(NEEDED) <= set(enabled) and (host.read(f"{hierarchy.mount}/cgroup.procs") or "").split():
        return f"{hierarchy.mount} is a container's own group with processes in it, and such a one has no groups with limits"
    return ""


def _of_manager(host: Rooted, uid: int, busctl: bool) -> tuple[frozenset[str], str]:
    """The controllers the user's systemd was given, and what it lacks to make groups with them."""
    if not busctl or not host.exists(bus_of(uid)):
        lack = "busctl" if not busctl else bus_of(uid)
        return (
            frozenset(),
            f"nor is there a systemd of the user that can be asked ({lack} is missing; dbus-user-session has it)",
        )
    place = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    names = frozenset((host.read(place) or "").split())
    missing = [name for name in NEEDED if name not in names]
    return names, f"nor was the user's systemd given {', '.join(missing)} (Delegate= of user@.service)" if missing else ""
