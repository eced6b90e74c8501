"""Whether a process of this host can be held and made to call the kernel (`tinamou.system.inject`), looked up alone."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

__all__ = ["may", "why_not"]

_NOBODY, _CAP_SYS_PTRACE = 3, 19
_MOVES_SHARED = (5, 13)
"""From this Linux on MREMAP_DONTUNMAP takes shared memory."""


def why_not() -> str:
    """Why no process of this host can be made to map its memory anew; empty where it can, as far as is known without trying.

    Source: Documentation/admin-guide/LSM/Yama.rst, ptrace(2), mremap(2).
    """
    if (here := os.uname().machine) != "x86_64":
        return f"the registers of {here} are not known to tinamou"
    if _kernel() < _MOVES_SHARED:
        return f"shared memory cannot be moved away by Linux {os.uname().release}: from 5.13 on it can"
    scope = 0
    with contextlib.suppress(OSError, ValueError):
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    if scope == _NOBODY:
        return "kernel.yama.ptrace_scope is 3: nobody may hold another process until the host is restarted"
    if os.geteuid() == 0 and not may(Path("/proc/self/status").read_text(), _CAP_SYS_PTRACE):
        return "this process has no CAP_SYS_PTRACE, which holding a process of another user takes"
    return ""


def _kernel() -> tuple[int, ...]:
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(map(int, numbers.groups())) if numbers else (0, 0)


def may(status: str, capability: int) -> bool:
    """Whether a process holds a capability, by its /proc/PID/status (source: capabilities(7))."""
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(held and int(held[1], 16) >> capability & 1)
