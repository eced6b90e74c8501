"""Examines one machine: whether it runs as it was planned, and what its own settings risk."""

from __future__ import annotations

import re
from pathlib import Path

from tinamou.doctor.finding import Finding, bad, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.prepare import helper_processes
from tinamou.prepare.groups import group_places
from tinamou.prepare.journal import Journal
from tinamou.state.record import Record
from tinamou.state.replicated import late, replica_of, wanted
from tinamou.system import cgroups, threads
from tinamou.units import CpuSet

__all__ = ["examine_machine"]

_VCPU = re.compile(r"CPU (\d+)/")
_TOGETHER = "all vCPUs"
_PAGES = ("Rss", "AnonHugePages", "Private_Hugetlb", "Shared_Hugetlb")


def examine_machine(record: Record, seen: Inspection) -> list[Finding]:
    """Findings about one machine, in the order of their weight."""
    found = []
    for name, check in _CHECKS:
        asked = record.running or check not in _OF_RUNNING
        said = check(record, seen) if asked else unknown("it is not running")
        found.append(said.named(f"machine_{name}", f"{record.name}: {name.replace('_', ' ')}"))
    return found


def _accelerator(record: Record, seen: Inspection) -> Finding:
    if not record.accel:
        return unknown("it was never started")
    if record.accel != "tcg":
        return good(f"runs on {record.accel}")
    facts = seen.accel()
    if facts is not None and facts.arch == record.arch and (best := facts.best()) and best.accel != "tcg":
        return warning(f"is emulated, though {best.accel} works here", "stop it, and start it with accel = auto")
    return info("is emulated: nothing faster works for its architecture here", "see the accelerator trial")


def _pinning(record: Record, seen: Inspection) -> Finding:
    wanted = {f"vCPU {index}": CpuSet.parse(text) for index, text in enumerate(record.pinning)}
    if not wanted:
        return info("its virtual CPUs run where the kernel puts them", 'pin = "auto" gives each a CPU of its own')
    found = _vcpu_threads(record.pid)
    if found.keys() == {_TOGETHER}:
        wanted = {_TOGETHER: CpuSet(frozenset().union(*wanted.values()))}
    if found.keys() != wanted.keys():
        return unknown(f"{len(found)} threads carry {len(wanted)} virtual CPUs")
    now = {name: threads.affinity(thread) for name, thread in found.items()}
    wrong = [f"{name} runs on {now[name]}, planned {wanted[name]}" for name in now if now[name] != wanted[name]]
    priority = record.spec.get("cpu", {}).get("realtime", 0)
    ranks = {name: threads.priority(thread) for name, thread in found.items()}
    wrong += [
        f"{name} has real-time priority {rank}, planned {priority}" for name, rank in ranks.items() if rank != priority
    ]
    if wrong:
        return bad("; ".join(wrong), "someone else moved them: stop the machine and start it again")
    return good(
        ", ".join(f"{name} on {cpus}" for name, cpus in now.items()) + (f", priority {priority}" if priority else "")
    )


def _vcpu_threads(pid: int) -> dict[str, int]:
    """``vCPU 0`` → thread; emulation with one thread for all of them calls it ``ALL CPUs``."""
    found = {}
    for thread, name in sorted(threads.names(pid).items()):
        if match := _VCPU.match(name):
            found[f"vCPU {match[1]}"] = thread
        elif name.startswith("ALL CPUs"):
            found[_TOGETHER] = thread
    return found


def _memory(record: Record, seen: Inspection) -> Finding:
    """Where the guest's memory really lies, from smaps (source: proc_pid_smaps(5))."""
    request = record.spec.get("memory", {}).get("hugepages", "off")
    text = seen.files.read(f"/proc/{record.pid}/smaps_rollup") or ""
    sizes = {name: sum(int(n) for n in re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)) >> 10 for name in _PAGES}
    if not text:
        return unknown(f"/proc/{record.pid}/smaps_rollup cannot be read")
    huge = sizes["Private_Hugetlb"] + sizes["Shared_Hugetlb"]
    shown = (
        f"{sizes['Rss']} MiB on ordinary pages, {huge} MiB on huge pages, {sizes['AnonHugePages']} MiB on transparent ones"
    )
    if request not in ("off", "auto") and not huge:
        return bad(f"{shown}; {request} pages were asked for", "stop the machine and start it again")
    return good(shown)


def _limits(record: Record, seen: Inspection) -> Finding:
    """Whether the machine's control groups hold it back, and how often (source: cgroup-v2.rst, cpu.stat)."""
    places = group_places(Journal(Path(record.directory)))
    if not record.spec.get("limits") and not places:
        return info("it has no control group: nothing bounds what QEMU takes of the host", "see tinamou doctor")
    missing = [place for place in places if str(record.pid) not in (seen.files.read(f"{place}/cgroup.procs") or "").split()]
    if missing or not places:
        return bad(f"QEMU is not in {', '.join(missing) or 'any control group'}", "stop the machine and start it again")
    stats = " ".join(seen.files.read(f"{place}/cpu.stat") or "" for place in places)
    throttled = re.search(r"nr_throttled (\d+)", stats)
    ends = cgroups.ended_for_memory(seen.files, places)
    held = f"held back {throttled[1]} times by its CPU limit" if throttled else "not limited in CPU time"
    return good(held + (f", {ends} processes ended for lack of memory" if ends else ""))


def _receipt(record: Record, seen: Inspection) -> Finding:
    """Whether the helper processes in its receipt live, and nothing is held while it is stopped."""
    entries = list(Journal(Path(record.directory)).open_entries().values())
    if not record.running:
        kinds = ", ".join(sorted({str(entry["kind"]) for entry in entries}))
        return bad(f"it is stopped and holds {kinds}", "tinamou host repair") if entries else good("it holds nothing")
    gone = [str(entry["name"]) for entry in entries if entry["kind"] == "helper" and helper_processes.found(entry) is None]
    if gone:
        return bad(f"{', '.join(gone)} ended while the machine runs", "stop the machine and start it again")
    return good(f"{len(entries)} things, see tinamou host")


def _disk_cache(record: Record, seen: Inspection) -> Finding:
    disks = record.spec.get("disk", [])
    unsafe = [str(n) for n, disk in enumerate(disks) if isinstance(disk, dict) and disk.get("cache") == "unsafe"]
    if unsafe:
        return warning(f"disk {', '.join(unsafe)}: cache = unsafe loses what the guest believes written", "use writeback")
    return good("what the guest flushes reaches the disk")


def _merging(record: Record, seen: Inspection) -> Finding:
    if record.spec.get("memory", {}).get("merge"):
        return warning("its memory may be merged with that of other machines", "set memory.merge = false")
    return good("its memory is merged with no other machine's")


def _replica(record: Record, seen: Inspection) -> Finding:
    newest = replica_of(record)
    if text := late(record):
        host = newest["host"] if newest else wanted(record)["to"]
        return warning(text, f"tinamou replicate {record.name} {host}")
    if newest is None:
        return info("no other host keeps its disks", "tinamou replicate NAME HOST, or replicate in its description")
    return good(f"{newest['host']} has its disks as they were {newest['age']} s ago")


_CHECKS = (
    ("accelerator", _accelerator),
    ("pinning", _pinning),
    ("memory", _memory),
    ("limits", _limits),
    ("receipt", _receipt),
    ("disk_cache", _disk_cache),
    ("memory_merging", _merging),
    ("replica", _replica),
)
_OF_RUNNING = (_pinning, _memory, _limits)
