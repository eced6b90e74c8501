"""Checkpoints by name: find, list, show as a tree, remove, restore."""

from __future__ import annotations

import difflib
from pathlib import Path

from tinamou.errors import StateError
from tinamou.machine.reconcile import end_machine
from tinamou.snapshots.checkpoint import Checkpoint, checkpoints_dir, discard, read
from tinamou.state import machines
from tinamou.state.record import Record

__all__ = ["children", "every", "find", "remove", "tree"]


def find(name: str) -> Checkpoint:
    """The checkpoint of that name. Raises StateError with a near name when there is none."""
    found = read(checkpoints_dir() / name) if name and "/" not in name else None
    if found is None:
        near = difflib.get_close_matches(name, [one.name for one in every()], 1)
        fix = f"did you mean {near[0]}?" if near else "tinamou checkpoints ls shows all checkpoints"
        raise StateError(f"there is no checkpoint {name}", fix=fix)
    return found


def every() -> list[Checkpoint]:
    """All checkpoints, oldest first."""
    found = (read(path) for path in checkpoints_dir().iterdir() if path.is_dir())
    return sorted((one for one in found if one is not None), key=lambda one: one.created)


def children(checkpoint: Checkpoint) -> list[Record]:
    """The machines forked from it that still exist."""
    return [record for record in machines.machines() if record.parent == checkpoint.name]


def remove(name: str, *, force: bool = False) -> list[str]:
    """Remove a checkpoint, with ``force`` its forks too; returns the names of those.

    Raises StateError while it has forks, unless ``force``. A damaged one is removed whatever its entry says.
    """
    try:
        checkpoint: Checkpoint | None = find(name)
    except StateError:
        if "/" in name or not (checkpoints_dir() / name / "checkpoint.json").exists():
            raise
        checkpoint = None
    forks = children(checkpoint) if checkpoint else []
    if forks and not force:
        names = ", ".join(record.name for record in forks)
        raise StateError(
            f"checkpoint {name} has forks: {names}", fix=f"tinamou rm -f {names}, or tinamou checkpoints rm -f {name}"
        )
    for record in forks:
        end_machine(record)
        machines.remove(Path(record.directory))
    discard(checkpoints_dir() / name)
    return [record.name for record in forks]


def tree() -> list[str]:
    """Machines, the checkpoints taken of them, the machines forked from those, and so on, one line each."""
    taken = every()
    records = {record.name: record for record in machines.machines()}
    lines: list[str] = []

    def machine(name: str, depth: int) -> None:
        state = "" if name not in records else " running" if records[name].running else " stopped"
        lines.append(f"{'  ' * depth}{name}{state or ' (gone)'}")
        for one in taken:
            if one.machine == name:
                lines.append(f"{'  ' * (depth + 1)}@{one.name} {one.kind}")
                for record in records.values():
                    if record.parent == one.name and record.name != name:
                        machine(record.name, depth + 2)

    known = {one.name for one in taken}
    forked = {record.name for record in records.values() if record.parent in known}
    for root in dict.fromkeys([*(one.machine for one in taken), *records]):
        if root not in forked:
            machine(root, 0)
    return lines
