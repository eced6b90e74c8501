"""What the host's kernel has said."""

from __future__ import annotations

import contextlib
import os

from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run

__all__ = ["audit_lines", "kernel_log"]

_SECONDS = 5.0
_AUDIT = "/var/log/audit/audit.log"
_TAIL = 256 << 10


def kernel_log() -> str | None:
    """The host's kernel log; None where it may not be read."""
    try:
        return run([find_tool("dmesg") or "dmesg"], timeout=_SECONDS)
    except (CommandError, TimeoutExpired, OSError):
        return None


def audit_lines() -> list[str]:
    """What the kernel told its auditor last: its own log, and that of auditd, where one has taken its place."""
    lines = (kernel_log() or "").splitlines()
    with contextlib.suppress(OSError), open(_AUDIT, "rb") as file:  # noqa: PTH123
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines += file.read().decode(errors="replace").splitlines()
    return lines
