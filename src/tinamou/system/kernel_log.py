"""What the host's kernel has said."""

from __future__ import annotations

import contextlib
import os
import re
import time

from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run

__all__ = ["kernel_log", "lately_audited"]

_SECONDS = 5.0
_AUDIT = "/var/log/audit/audit.log"
_TAIL = 256 << 10
_STAMP = re.compile(r"\baudit\((\d+\.\d+):\d+\)")
"""Seconds since 1970, and a number."""


def kernel_log() -> str | None:
    """The host's kernel log; None where it may not be read."""
    try:
        return run([find_tool("dmesg") or "dmesg"], timeout=_SECONDS)
    except (CommandError, TimeoutExpired, OSError):
        return None


def lately_audited(seconds: float = 60.0) -> list[str]:
    """What the kernel told its auditor last, newest first: its own log, and that of auditd, where there is one."""
    lines = (kernel_log() or "").splitlines()
    with contextlib.suppress(OSError), open(_AUDIT, "rb") as file:  # noqa: PTH123
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines += file.read().decode(errors="replace").splitlines()
    stamped = ((_STAMP.search(line), line) for line in reversed(lines))
    return [line for stamp, line in stamped if stamp is not None and float(stamp[1]) > time.time() - seconds]
