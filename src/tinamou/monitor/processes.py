"""What a machine's QEMU takes of the host: processor time and memory (source: proc_pid_stat(5), proc_pid_smaps(5))."""

from __future__ import annotations

import os
import re
import time

from tinamou.late import dataclass
from tinamou.monitor.observation import Held
from tinamou.system.rooted import Rooted
from tinamou.units import Size

__all__ = ["Spent", "held", "percent", "spent", "uptime"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Seconds of processor time a process has had, at a moment of the monotonic clock."""

    seconds: float
    at: float


def spent(files: Rooted, pid: int) -> Spent | None:
    """Its processor time until now; None when it has ended."""
    fields = _stat(files, pid)
    return Spent((int(fields[11]) + int(fields[12])) / _TICKS, time.monotonic()) if fields else None


def percent(before: Spent | None, after: Spent | None, vcpus: int) -> float | None:
    """What it used of ``vcpus`` processors between two moments, in per cent: QEMU's own work can make it more than 100."""
    if before is None or after is None or after.at <= before.at:
        return None
    return 100 * (after.seconds - before.seconds) / (after.at - before.at) / vcpus


def uptime(files: Rooted, pid: int) -> float:
    """Seconds since it was started; 0 when it has ended."""
    fields, up = _stat(files, pid), (files.read("/proc/uptime") or "0").split()
    return max(0.0, float(up[0]) - int(fields[19]) / _TICKS) if fields else 0.0


def _stat(files: Rooted, pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: index 0 is field 3."""
    return (files.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()


def held(files: Rooted, pid: int, *, share: bool) -> Held | None:
    """Its memory on the host; None where that may not be read. ``share`` asks for its PSS too, for which the kernel walks
    over all its pages."""
    status = files.read(f"/proc/{pid}/status") or ""
    sizes = {name: int(size) << 10 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", status, re.MULTILINE)}
    if "VmRSS" not in sizes:
        return None
    pss = _pss(files, pid) if share else None
    return Held(Size(sizes["VmRSS"] + sizes.get("HugetlbPages", 0)), Size(sizes.get("VmSwap", 0)), pss)


def _pss(files: Rooted, pid: int) -> Size | None:
    found = re.search(r"^Pss:\s+(\d+) kB", files.read(f"/proc/{pid}/smaps_rollup") or "", re.MULTILINE)
    return Size(int(found[1]) << 10) if found else None
