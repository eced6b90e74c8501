"""What other machines leave of the host for this one, and what it does without where the host refuses it."""

from __future__ import annotations

import re
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Note, Why
from tinamou.prepare.shortage import PagesShortError
from tinamou.spec import MachineSpec
from tinamou.state import ledger, machines
from tinamou.state.record import Record
from tinamou.tuning.admission import MemoryBill
from tinamou.units import CpuSet, Size

__all__ = ["claims", "leased", "without_huge_pages"]

_DEFAULT_MEMORY = "512M"


def leased(directory: str) -> dict[str, CpuSet]:
    """The CPUs other machines hold, by name."""
    return {Path(machine).name: cpus for machine, cpus in ledger.look().leased(exclude=directory).items()}


def claims(directory: str) -> dict[str, Size]:
    """The memory other running machines were promised and have not touched yet, by name."""
    running = [one for one in machines.awake() if one.directory != directory and one.running]
    return {one.name: Size(max(_promised(one) - _used(one.pid), 0)) for one in running}


def _promised(record: Record) -> int:
    size = Size.parse(record.spec.get("memory", {}).get("size", _DEFAULT_MEMORY))
    return size + MemoryBill.qemu_overhead(record.spec.get("cpu", {}).get("count", 1))


def _used(pid: int) -> int:
    """Resident memory and huge pages of a process, in bytes (source: proc_pid_status(5))."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(size) << 10 for size in re.findall(r"^(?:VmRSS|HugetlbPages):\s+(\d+) kB", text, re.MULTILINE))


def without_huge_pages(spec: MachineSpec, error: PagesShortError) -> tuple[MachineSpec, Note]:
    """The same machine on ordinary memory, and why: only for ``hugepages = "auto"``, else the error is raised again."""
    if spec.memory.hugepages != "auto":
        raise error
    note = Note("warning", "memory on transparent huge pages: the kernel had too few", Why("host", error.why or error.what))
    return late.replace(spec, memory=late.replace(spec.memory, hugepages="off")), note
