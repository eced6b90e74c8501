"""Whose disks rest on the frozen files of a checkpoint, and its removal: those files stay as long as anybody reads them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError, TinamouError
from tinamou.images.chain import read_chain
from tinamou.snapshots import history
from tinamou.snapshots.checkpoint import checkpoints_dir, read
from tinamou.snapshots.ram import Held, let_go
from tinamou.state.machines import folders
from tinamou.system.plain_file import folder_fault

__all__ = ["discard", "resting_on"]


def discard(directory: Path) -> None:
    """Remove a checkpoint's files; the entry goes first, so that a half-removed checkpoint is none, then its memory.

    Frozen disks that others rest on stay; `orphans.clear` removes them when nobody does any more.
    """
    kept = _memory_of(directory)
    (directory / "checkpoint.json").unlink(missing_ok=True)
    let_go(directory, kept)
    if resting_on(directory):
        for path in directory.iterdir():
            if not path.name.startswith("disk"):
                path.unlink(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _memory_of(directory: Path) -> Held | None:
    try:
        found = read(directory)
    except StateError:
        return None
    return found.ram if found else None


def resting_on(directory: Path) -> list[tuple[str, str]]:
    """The others whose disks read through files of this checkpoint's folder: ``checkpoint`` or ``machine``, and its name."""
    if not directory.is_dir() or not any(directory.glob("disk*")):
        return []
    place = directory.resolve()
    return [who for who, chains in _everybody(directory) if any(path.parent == place for path in chains)]


def _everybody(exclude: Path) -> Iterator[tuple[tuple[str, str], set[Path]]]:
    for folder in sorted(checkpoints_dir().iterdir()):
        if folder != exclude and not folder_fault(folder):
            yield ("checkpoint", folder.name), _of_checkpoint(folder)
    for folder in folders():
        yield ("machine", folder.name), _of_machine(folder)


def _of_checkpoint(folder: Path) -> set[Path]:
    found: set[Path] = set()
    with contextlib.suppress(TinamouError):
        one = read(folder)
        for disk in one.disks.values() if one else ():
            found |= _files(folder / disk.file, disk.format, disk.floor)
    return found


def _of_machine(folder: Path) -> set[Path]:
    found: set[Path] = set()
    with contextlib.suppress(TinamouError, NotADirectoryError):
        for disk in history.load(folder).disks.values():
            found |= _files(folder / disk.top, disk.format, disk.floor)
    return found


def _files(top: Path, format: str, floor: str = "") -> set[Path]:
    return {Path(layer.path) for layer in read_chain(top, format=format, trusted=[Path(floor)] if floor else [])}
