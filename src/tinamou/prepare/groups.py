"""The control groups of a machine: made before its first process, entered by each, removed after the last."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, cast

from tinamou import late
from tinamou.blueprint import MakeCgroup
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.prepare.shortage import GroupRefusedError
from tinamou.system import cgroups, proc
from tinamou.system.spawn import alive, process_of

__all__ = ["enter_all", "enter_groups", "group_places", "make_group", "remove_group"]

_ROUNDS = 10
"""What is started by who is in the group already is looked at again, but not for ever."""


def group_name(machine: str, name: str) -> str:
    """The group's name: the machine's, and a mark of its directory, as other state directories may use the same name."""
    return f"{name}-{zlib.crc32(machine.encode()):08x}"


def make_group(step: MakeCgroup, journal: Journal) -> None:
    """Makes the groups, which processes of the machine enter when they start. Raises GroupRefusedError.

    The user's systemd makes its own with the first process.
    """
    name = group_name(str(journal.path.parent), step.name)
    limits = cgroups.Limits(
        cpu=step.cpu / 100 if step.cpu else None,
        memory=step.memory,
        read=step.read,
        write=step.write,
        device=_device(step.beside) if step.read or step.write else "",
        pids=step.pids,
    )
    if step.by == "systemd":
        journal.take("cgroup", places=[], scope=name, limits=late.asdict(limits))
        return
    try:
        places = [str(folder) for _, folder in cgroups.folders(name, limits.controllers()).values()]
        number = journal.take("cgroup", places=places)
        try:
            cgroups.make(name, limits)
        except OSError:
            journal.give(number)
            raise
    except OSError as error:
        fix = "see the kernel's reason"
        raise GroupRefusedError("the machine's control group cannot be made", why=str(error), fix=fix) from error


def enter_groups(journal: Journal, pid: int) -> None:
    """Moves a process that has just been started into the groups its machine has. Raises PrepareError."""
    try:
        for number, entry in journal.open_entries().items():
            if entry["kind"] == "cgroup" and "scope" in entry:
                from tinamou.system import scopes

                place = scopes.enter(str(entry["scope"]), cgroups.Limits(**cast("dict[str, Any]", entry["limits"])), pid)
                if not entry["places"]:
                    journal.add(number, places=[str(place)])
            elif entry["kind"] == "cgroup":
                cgroups.enter([Path(place) for place in cast("list[str]", entry["places"])], pid)
    except OSError as error:
        if not _alive(pid):  # whoever waits for it says why
            return
        why, fix = str(error), "tinamou doctor says what this host has"
        raise PrepareError("the machine's control group cannot be entered", why=why, fix=fix) from error


def enter_all(journal: Journal, pid: int) -> None:
    """The same, with what it has started meanwhile: who is in a group starts all others in it. Raises PrepareError."""
    entered, found = set[int](), {pid}
    for _ in range(_ROUNDS):
        for one in found:
            enter_groups(journal, one)
        entered |= found
        if not (found := proc.descendants(pid) - entered):
            return


def _alive(pid: int) -> bool:
    try:
        return alive(process_of(pid))
    except ProcessLookupError:
        return False


def group_places(journal: Journal) -> list[str]:
    """The folders of the groups its machine has."""
    entries = journal.open_entries().values()
    return [str(place) for entry in entries if entry["kind"] == "cgroup" for place in cast("list[str]", entry["places"])]


def _device(path: str) -> str:
    """``MAJOR:MINOR`` of the whole disk a file lies on (limits hold for disks, not for partitions). Raises PrepareError."""
    number = Path(path).stat().st_dev
    if not os.major(number):
        raise PrepareError(
            "limits.read and limits.write cannot be held",
            why=f"{path} lies on no single disk: its filesystem is in memory, on the network, or spreads over disks (btrfs)",
            fix="leave them out, or put TINAMOU_STATE on a filesystem of one disk",
        )
    spelled = f"{os.major(number)}:{os.minor(number)}"
    disk = Path(f"/sys/dev/block/{spelled}/../dev")
    return disk.read_text().strip() if Path(f"/sys/dev/block/{spelled}/partition").exists() else spelled


def remove_group(entry: Entry) -> None:
    """Removes the groups; a scope goes with its last process."""
    places = entry["places"]
    assert isinstance(places, list)
    if "scope" in entry:
        return
    cgroups.remove([str(place) for place in places])
