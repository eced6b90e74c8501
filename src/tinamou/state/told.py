"""What people were told of this host lately, so that not every command repeats it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tinamou.digest import sha256
from tinamou.system.paths import state_dir

__all__ = ["told_lately"]

_DAY = 86400.0


def told_lately(text: str) -> bool:
    """Whether this was told within a day; from now on it was. False where that cannot be kept."""
    file: Path = state_dir() / "told" / sha256(text.encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):
        if 0 <= time.time() - file.stat().st_mtime < _DAY:
            return True
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return False
