"""Drawing the history of snapshots as a tree, with the place where the machine is now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tinamou.snapshots.history import History, Snapshot

__all__ = ["draw"]


def draw(history: History) -> str:
    """One line a snapshot, children below their parent, the present state where it belongs."""
    lines = list(_branch(history, 0, ""))
    return "\n".join(lines or ["● now"])


def _branch(history: History, parent: int, indent: str) -> Iterator[str]:
    children = history.children(parent)
    entries: list[Snapshot | None] = [*children, *([None] if history.current == parent else [])]
    for index, entry in enumerate(entries):
        last = index == len(entries) - 1
        joint = "" if parent == 0 and len(entries) == 1 else ("└─ " if last else "├─ ")
        if entry is None:
            yield f"{indent}{joint}● now"
            continue
        yield f"{indent}{joint}{_label(entry)}"
        yield from _branch(history, entry.number, indent + ("" if not joint else "   " if last else "│  "))


def _label(shot: Snapshot) -> str:
    when = datetime.fromtimestamp(shot.created).strftime("%Y-%m-%d %H:%M:%S")
    note = f"  {shot.note}" if shot.note else ""
    return f"○ {shot.name}  {when}{note}"
