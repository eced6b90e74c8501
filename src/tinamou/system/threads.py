"""The threads of a process, and which CPUs each may run on (source: proc_pid_task(5), sched_setaffinity(2), sched(7))."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tinamou.units import CpuSet

__all__ = [
    "affinity",
    "computed",
    "inside",
    "make_real_time",
    "names",
    "pin",
    "priority",
    "real_time_refusal",
    "schedules_cores",
]


_SCHED_CORE, _GET = 62, 0
"""PR_SCHED_CORE, PR_SCHED_CORE_GET (source: Documentation/admin-guide/hw-vuln/core-scheduling.rst)."""


def schedules_cores() -> bool:
    """Whether the kernel can keep strangers off the other hardware threads of a core: built so, on such cores."""
    import ctypes

    cookie = ctypes.c_uint64()
    return bool(ctypes.CDLL(None).prctl(_SCHED_CORE, _GET, 0, 0, ctypes.byref(cookie)) == 0)


def names(pid: int) -> dict[int, str]:
    """Thread number → name, for every thread that lives now; empty when the process is gone."""
    found = {}
    try:
        folders = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return {}
    for folder in folders:
        with contextlib.suppress(OSError):
            found[int(folder.name)] = (folder / "comm").read_text().strip()
    return found


def inside(pid: int) -> dict[int, int]:
    """The number a thread knows itself by, in its namespace, → the one it has here (source: proc_pid_status(5))."""
    found = {}
    for thread in names(pid):
        try:
            rows = Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines()
        except OSError:
            continue
        numbers = next((row.split()[1:] for row in rows if row.startswith("NSpid:")), [str(thread)])
        found[int(numbers[-1])] = thread
    return found


def computed(pid: int, *beginnings: str) -> float:
    """Seconds that the threads of a process whose names begin so have computed (source: proc_pid_stat(5))."""
    ticks = 0
    for thread in (number for number, known in names(pid).items() if known.startswith(beginnings)):
        try:
            fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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


def priority(thread: int) -> int:
    """The FIFO priority of a thread, 0 for one that is scheduled like any other. Raises ProcessLookupError."""
    fifo = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    return os.sched_getparam(thread).sched_priority if fifo else 0


def real_time_refusal() -> str:
    """Why this process may not give threads real-time priority; empty when it could take the lowest one for a moment."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return (
            "the kernel refuses SCHED_FIFO to this process: RLIMIT_RTPRIO is 0, or its control group has no real-time share"
        )
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return ""
