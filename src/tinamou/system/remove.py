"""Removing folders; the library that does it is loaded with the first that is removed, which a start has none of."""

from __future__ import annotations

from pathlib import Path

__all__ = ["remove_tree"]


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, as far as that can be."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
