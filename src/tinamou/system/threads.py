"""The threads of a process, and which CPUs each may run on (source: proc_pid_task(5), sched_setaffinity(2), sched(7))."""

from __future__ import annotations

import os
from pathlib import Path

from tinamou.units import CpuSet

__all__ = ["affinity", "make_real_time", "names", "pin"]


def names(pid: int) -> dict[int, str]:
    """Thread number → name, for every thread that lives now; empty when the process is gone."""
    found = {}
    try:
        folders = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return {}
    for folder in folders:
        try:
            found[int(folder.name)] = (folder / "comm").read_text().strip()
        except OSError:
            continue
    return found


def affinity(thread: int) -> CpuSet:
    """The CPUs a thread may run on. Raises ProcessLookupError when it is gone."""
    return CpuSet(os.sched_getaffinity(thread))


def pin(thread: int, cpus: CpuSet) -> bool:
    """Lets a thread run on these CPUs only; False when it is gone. Raises OSError when the CPUs cannot be had."""
    try:
        os.sched_setaffinity(thread, cpus)
    except ProcessLookupError:
        return False
    return True


def make_real_time(thread: int, priority: int) -> bool:
    """Gives a thread the FIFO policy with ``priority`` (1 to 99); False when it is gone. Raises PermissionError."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except ProcessLookupError:
        return False
    return True
