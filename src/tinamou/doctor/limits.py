"""Resource limits of this process, read from /proc (source: proc(5), getrlimit(2))."""

from __future__ import annotations

import re

from tinamou.system.rooted import Rooted

__all__ = ["soft_limit"]


def soft_limit(files: Rooted, name: str) -> int | None:
    """The soft limit in its own unit, -1 for unlimited, None when it cannot be read."""
    for line in (files.read("/proc/self/limits") or "").splitlines():
        if line.startswith(name):
            word = re.split(r"\s{2,}", line)[1]
            return -1 if word == "unlimited" else int(word)
    return None
