"""The folder a fuzzed reader finds its files in."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


@functools.cache
def folder() -> Path:
    """A folder of this process, below which everything lies that is written."""
    made = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    os.environ["TINAMOU_CACHE"], os.environ["TINAMOU_STATE"] = str(made / "cache"), str(made / "state")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def written(data: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path
