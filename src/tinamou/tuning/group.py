"""Decides the control group of a machine: what the user limits, and for the rest more than it ever needs.

Without limits a QEMU that was taken over could have all memory and all processes of the host.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinamou.blueprint import Contribution, MakeCgroup, Note, Why
from tinamou.errors import Problem
from tinamou.parts.limits import LimitsSpec
from tinamou.parts.protocol import Part, Resolved
from tinamou.tuning.accel import translation_cache
from tinamou.tuning.admission import MemoryBill
from tinamou.units import Size

__all__ = ["PART", "file_size", "files", "longest", "tasks"]

_SLACK = 256 << 20
_SHARE = 32
"""Of guest RAM one part in so many: page tables of the host and of KVM, QEMU's dirty bitmaps."""
_PER_DEVICE = 64 << 20
"""Of a disk: QEMU's caches of qcow2's tables, up to 32 MiB for each file of a chain; else the process that serves it."""
_ENCRYPTED = ("sev-snp", "tdx")
"""The guest's private memory and what it shares with the host are two pieces, which may both be full."""

_BESIDE = 1 << 30
"""A capture of packets, device state beside memory."""
_COUNTED_APART = (5, 14)
"""Since this version of the kernel RLIMIT_NPROC counts in each namespace of users alone."""
_FEWEST_TASKS = 16
_FILES = 1024
_BASE_TASKS = 64
_TASKS_PER_LOOP = 192
"""A pool of 64 workers (util/thread-pool.c), and 128 of the kernel's for io_uring, as many as QEMU's queue has entries."""
_TASKS_PER_HELPER = 16


def contribute(resolved: Resolved) -> Contribution:
    """The machine's group; where none can be made and nothing was asked, a remark that says why."""
    spec, host, place = resolved.spec.limits, resolved.facts.host, resolved.facts.place
    if not host.grouping.by:
        why = Why("host", host.grouping.fault)
        text = "nothing bounds the memory, processes and threads of this QEMU: it has no control group of its own"
        return Contribution(notes=(Note("remark", text, why),))
    memory, of_memory = (spec.memory, "") if spec.memory else _memory(resolved)
    pids, of_pids = (spec.pids, "") if spec.pids else _pids(resolved)
    asked = ", ".join(f"{name} {value}" for name, value in _asked(spec).items())
    told = f"the machine may use no more of the host than {asked}" if asked else ""
    why = Why("spec limits" if asked else "default", "; ".join(filter(None, (told, of_memory, of_pids))))
    limits = MakeCgroup(
        place.name, why, spec.hundredths, memory, spec.read, spec.write, place.directory, pids, host.grouping.by
    )
    return Contribution(steps=(limits,))


def check(resolved: Resolved) -> list[Problem]:
    """Limits that cannot be held here."""
    grouping = resolved.facts.host.grouping
    needs = {"cpu": "cpu", "memory": "memory", "read": "io", "write": "io", "pids": "pids"}
    lacking = {
        name: value for name, value in _asked(resolved.spec.limits).items() if needs[name] not in grouping.controllers
    }
    few = _FEWEST_TASKS + resolved.spec.cpu.room
    if (resolved.spec.limits.pids or few) < few:
        reason = f"QEMU has {few} threads with this many vCPUs, and ends where it is refused one"
        return [Problem("limits.pids", resolved.spec.limits.pids, reason, f"at least {few}")]
    fix = "run as root, or leave it out; tinamou doctor says more"
    return [
        Problem(f"limits.{name}", str(value), grouping.fault or f"no group can have the controller {needs[name]} here", fix)
        for name, value in lacking.items()
    ]


def _asked(spec: LimitsSpec) -> dict[str, object]:
    asked = {"cpu": spec.cpu, "memory": spec.memory, "read": spec.read, "write": spec.write, "pids": spec.pids}
    return {name: value for name, value in asked.items() if value}


def _memory(resolved: Resolved) -> tuple[Size, str]:
    """Guest RAM, what QEMU takes by the sum that admits machines, and room for what that leaves out; and why.

    A forkable machine may have changed all of its memory since a checkpoint froze that.
    """
    spec, host = resolved.spec, resolved.facts.host
    on_pages = bool(resolved.resources.pages.page) and not host.grouping.huge
    encrypted = resolved.encryption is not None and resolved.encryption.kind in _ENCRYPTED
    ram = Size(0 if on_pages else spec.memory.size * (2 if encrypted or spec.memory.forkable else 1))
    qemu = MemoryBill.qemu_overhead(spec.cpu.room, translation_cache(resolved.accel, spec.memory.size))
    devices = len(resolved.disks) + _helpers(resolved)
    slack = _SLACK + spec.memory.size // _SHARE + devices * _PER_DEVICE
    most = Size(ram + qemu + slack)
    limit = host.memory_limit
    said = f"memory at most {most.mib} MiB: guest RAM {ram.mib}, QEMU {qemu.mib}, {slack >> 20} for caches, tables, helpers"
    if limit is not None and limit < most:
        return limit, f"memory at most {limit.mib} MiB, as the group this process is in"
    return most, said


def _pids(resolved: Resolved) -> tuple[int, str]:
    """Threads of QEMU for its vCPUs and I/O, and processes beside it; and why."""
    cpus, helpers = resolved.spec.cpu.room, _helpers(resolved)
    loops = 1 + len(resolved.resources.iothreads) + resolved.hotplug
    most = _BASE_TASKS + cpus + loops * _TASKS_PER_LOOP + helpers * _TASKS_PER_HELPER
    said = f"{cpus} vCPUs, {_TASKS_PER_LOOP} workers for each of {loops} loops of I/O that it has or may get"
    return most, f"at most {most} processes and threads: {said}"


def files(resolved: Resolved) -> int:
    """How many files QEMU may have open: its own, and up to eight event descriptors for each vCPU of each device."""
    return _FILES + 8 * resolved.spec.cpu.room * (len(resolved.disks) + _helpers(resolved))


def tasks(resolved: Resolved) -> int | None:
    """The same where no group can be made, for a user's QEMU in a namespace of users, in which it is counted alone."""
    host = resolved.facts.host
    version = tuple(int(part) for part in host.kernel.split("-")[0].split(".")[:2] if part.isdecimal())
    apart = resolved.facts.walls.user and version >= _COUNTED_APART
    return _pids(resolved)[0] if apart and not host.grouping.by else None


def file_size(resolved: Resolved) -> int | None:
    """How long QEMU may make any file; None where that is not known beforehand."""
    written = [disk for disk in resolved.disks if not disk.readonly]
    sizes = [disk.size or disk.top.size for disk in written]
    return None if resolved.spec.qemu_args or 0 in sizes else longest(sizes, resolved.spec.memory.size)


def longest(disks: Iterable[int], memory: int) -> int:
    """How long a file of QEMU's may become, in bytes: the largest disk and tables of it, guest RAM with states, captures.

    Tables take a 8192nd of a qcow2 disk with clusters of 64 KiB, and less than a 32nd with the smallest there are.
    """
    largest = max(disks, default=0)
    return largest + largest // 32 + memory + _BESIDE


def _helpers(resolved: Resolved) -> int:
    """How many processes it may have beside it: a TPM's, one for each share and card, and what is plugged in later."""
    spec = resolved.spec
    return bool(spec.tpm.enabled) + len(spec.share) + len(spec.net) + resolved.hotplug


PART = Part(contribute, check=check)
