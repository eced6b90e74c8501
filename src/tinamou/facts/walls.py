"""Which walls the kernel lets this user build around a process, found out by building them around none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tinamou.late import dataclass, field

__all__ = ["NAMESPACES", "WallFacts", "letters"]

NAMESPACES = {"mount": "m", "pid": "p", "ipc": "i", "uts": "u", "cgroup": "c", "net": "n"}
"""Namespaces as the kernel names them, and their letters for images/programs/jail.c (source: namespaces(7))."""
_LETTERS = {**NAMESPACES, "user": "U"}


def letters(kinds: Iterable[str]) -> str:
    """What the launcher is told for these namespaces, ``user`` among them."""
    return "".join(_LETTERS[kind] for kind in kinds)


@dataclass(frozen=True)
class WallFacts:
    """``refused`` maps each namespace that cannot be had here to the reason; ``user`` says that all others are made inside a
    user namespace, as callers without root must. ``landlock`` is the version of that interface, 0 where it is not active.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    user: bool = False
    landlock: int = 0
