"""Why a QEMU is gone: ended by the host's kernel for lack of memory or for a system call it may not make, or crashed.

Source: cgroup-v2.rst, mm/oom_kill.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tinamou.prepare.groups import group_places
from tinamou.prepare.journal import Journal
from tinamou.state.record import Record
from tinamou.system import cgroups
from tinamou.system.ended import refused_call
from tinamou.system.kernel_log import kernel_log
from tinamou.system.rooted import Rooted

__all__ = ["cause_of"]

_STAMP = re.compile(r"\[ *(\d+\.\d+)\]")


def cause_of(record: Record, files: Rooted | None = None, log: Callable[[], str | None] = kernel_log) -> str:
    """What ended the QEMU of a machine that was not told to end; empty where nothing tells.

    To be asked before what the machine took is given back: its control group counts.
    """
    if not record.pid:
        return ""
    return _by_group(record, files or Rooted()) or _by_log(record, log() or "")


def _by_group(record: Record, files: Rooted) -> str:
    places = group_places(Journal(Path(record.directory)))
    if not cgroups.ended_for_memory(files, places):
        return ""
    limit = record.spec.get("limits", {}).get("memory")
    bound = f"limits.memory = {limit} allows" if limit else "a machine of this size ever does (limits.memory allows it more)"
    return f"the host's kernel ended QEMU: it needed more memory than {bound}"


def _by_log(record: Record, log: str) -> str:
    """The kernel names the process it ended; a line from before this one was started is about another of that number."""
    started = record.started / os.sysconf("SC_CLK_TCK")
    crashed = re.compile(rf"\[{record.pid}\]:? .*(?:segfault|general protection|trap)")
    for line in log.splitlines():
        stamp, said = _STAMP.search(line), line.partition("] ")[2] or line
        if stamp is not None and float(stamp[1]) < started:
            continue
        if f"Killed process {record.pid} (" in line:
            group = "the control group QEMU was in" if "emory cgroup" in line else "the host"
            return f"the host's kernel ended QEMU, because {group} was out of memory: {said}"
        if call := refused_call(line, record.pid):
            return f"QEMU was ended, because it made a system call that its filter refuses: {call}"
        if crashed.search(line):
            return f"QEMU crashed: {said}"
    return ""
