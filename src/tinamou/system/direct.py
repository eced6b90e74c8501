"""Open files that are read and written around the page cache: QEMU is handed those as it opens them, flag for flag.

Since 9.1 it takes of a set of descriptors only one that has O_DIRECT exactly if it wants that; before, it set that itself.
Source: monitor/fds.c, open(2), fcntl(2).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping

__all__ = ["around_the_cache", "is_direct"]


def is_direct(file: Mapping[str, object]) -> bool:
    """Whether the options of a file's node (BlockdevOptionsFile) say so."""
    cache = file.get("cache")
    return isinstance(cache, Mapping) and cache.get("direct") is True


def around_the_cache(descriptor: int) -> None:
    """Have the open file read and written so, for whoever has it. Raises OSError where its filesystem cannot."""
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
