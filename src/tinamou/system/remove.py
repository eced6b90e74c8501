"""Removing folders; the library that does it is loaded with the first that is removed, which a start has none of."""

from __future__ import annotations

from pathlib import Path

__all__ = ["remove_tree"]


def remove_tree(folder: Path, *, ignore_errors: bool = True) -> None:
    """Remove a folder with everything in it, if it is there. Raises OSError unless errors are ignored."""
    import shutil

    shutil.rmtree(folder, ignore_errors=ignore_errors)
