"""The folder a fuzzed reader finds its files in: whoever watches the process made it, and removes it."""

from __future__ import annotations

import functools
import os
from pathlib import Path


@functools.cache
def folder() -> Path:
    """Where everything lies that the process writes."""
    made = Path(os.environ["TINAMOU_FUZZ_FOLDER"])
    os.environ["TINAMOU_CACHE"], os.environ["TINAMOU_STATE"] = str(made / "cache"), str(made / "state")
    return made


def written(data: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path
