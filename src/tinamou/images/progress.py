"""How a long image operation tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "silent"]

Progress: TypeAlias = Callable[[str, "float | None"], None]
"""Called with a short text ("downloading packages") and the fraction done from 0 to 1, None where it is not known."""


def silent(text: str, fraction: float | None) -> None:
    """Tell nobody."""
