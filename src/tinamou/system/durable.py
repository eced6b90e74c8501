"""Putting files in place so that a power cut leaves the old ones or the new ones, whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tinamou.system.closing import Closing

__all__ = ["PART", "put_in_place", "sync_file", "sync_files", "sync_folder"]

PART = ".part"
"""Ending of a file that is being made; what a crash left under such a name is nothing yet."""

_TOGETHER = 64


def put_in_place(directory: Path, names: Sequence[str]) -> None:
    """Give files written as ``NAME.part`` their names, in this order; on stable storage, names too, before this returns.

    Raises OSError.
    """
    parts = [directory / (name + PART) for name in names]
    sync_files(parts)
    for part, name in zip(parts, names, strict=True):
        part.replace(directory / name)
    sync_folder(directory)


def sync_file(path: Path) -> None:
    """Have a file's data on stable storage. Raises OSError."""
    _sync(path, os.O_RDONLY, os.fdatasync)


def sync_files(paths: Sequence[Path]) -> None:
    """The same of several at the same time: a journalling file system takes hardly longer than for one. Raises OSError."""
    if len(paths) == 1:
        sync_file(paths[0])
    elif paths:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(paths), _TOGETHER)) as pool:
            list(pool.map(sync_file, paths))


def sync_folder(directory: Path) -> None:
    """Have the names in a folder on stable storage. Raises OSError."""
    _sync(directory, os.O_RDONLY | os.O_DIRECTORY, os.fsync)


def _sync(path: Path, flags: int, sync: Callable[[int], None]) -> None:
    with Closing(os.open(path, flags | os.O_CLOEXEC)) as descriptor:
        sync(descriptor)
