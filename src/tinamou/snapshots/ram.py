"""The folder, in memory, of the files in which instant checkpoints keep their guests' memory."""

from __future__ import annotations

import os
from pathlib import Path

from tinamou.errors import StateError
from tinamou.system.paths import ram_dir, state_dir
from tinamou.system.remove import remove_tree

__all__ = ["drop_ram_dir", "make_ram_dir", "ram_file"]


def ram_file(name: str) -> Path:
    """Where an instant checkpoint's memory lies."""
    return ram_dir() / f"{name}.ram"


def make_ram_dir() -> Path:
    """The folder of memory files; ``state`` in it names the state directory it belongs to."""
    folder = ram_dir()
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise StateError(f"{folder} belongs to somebody else", why="it would hold the memory of machines", fix="remove it")
    (folder / "state").write_text(str(state_dir()))
    return folder


def drop_ram_dir() -> None:
    """Remove the folder of memory files when it holds none."""
    folder = ram_dir()
    if folder.is_dir() and not any(folder.glob("*.ram")):
        remove_tree(folder)
