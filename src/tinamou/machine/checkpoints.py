"""Checkpoints by name: find, list, show as a tree, remove, restore."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.machine.life import at_rest
from tinamou.machine.reconcile import end_machine
from tinamou.snapshots.checkpoint import Checkpoint, checkpoints_dir, read
from tinamou.snapshots.resting import discard, resting_on
from tinamou.state import machines
from tinamou.state.allowed import of_root, refusal
from tinamou.state.record import Record
from tinamou.system.plain_file import folder_fault

__all__ = ["children", "every", "find", "remove", "tree"]


def find(name: str) -> Checkpoint:
    """The checkpoint of that name. Raises StateError with a near name when there is none."""
    found = read(checkpoints_dir() / name) if name and "/" not in name else None
    if found is None and (others := of_root(name)) is not None:
        raise refusal(others)
    if found is None:
        near = difflib.get_close_matches(name, [one.name for one in every()], 1)
        fix = f"did you mean {near[0]}?" if near else "tinamou checkpoints ls shows all checkpoints"
        raise StateError(f"there is no checkpoint {name}", fix=fix)
    return found


def every() -> list[Checkpoint]:
    """All checkpoints, oldest first; damaged ones are left out."""
    found = []
    for path in checkpoints_dir().iterdir():
        with contextlib.suppress(StateError):  # said by whoever tidies up
            if not folder_fault(path) and (one := read(path)) is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.created)


def children(checkpoint: Checkpoint) -> list[Record]:
    """The machines forked from it that still exist."""
    return [record for record in machines.machines() if record.parent == checkpoint.name]


def remove(name: str, *, force: bool = False) -> list[str]:
    """Remove a checkpoint, with ``force`` also what came from it: its forks, and checkpoints whose disks rest on its disks.

    Returns what went with it. Raises StateError while there is such, unless ``force``. A damaged one is removed whatever its
    entry says.
    """
    directory = checkpoints_dir() / name
    try:
        checkpoint: Checkpoint | None = find(name)
    except StateError:
        if "/" in name or not (directory / "checkpoint.json").exists():
            raise
        checkpoint = None
    forks = {record.name for record in children(checkpoint)} if checkpoint else set()
    resting = resting_on(directory)
    forks |= {one for kind, one in resting if kind == "machine"}
    later = [one for kind, one in resting if kind == "checkpoint"]
    if (forks or later) and not force:
        names = ", ".join([*sorted(forks), *(f"@{one}" for one in later)])
        fix = f"remove them first, or with it: tinamou checkpoints rm -f {name}"
        raise StateError(f"checkpoint {name} is what others rest on: {names}", fix=fix)
    gone = []
    for one in later:
        if (checkpoints_dir() / one).exists():
            gone += [*remove(one, force=True), f"@{one}"]
    for record in machines.machines():
        if record.name in forks:
            end_machine(record)
            machines.remove(Path(record.directory))
            gone.append(record.name)
    discard(directory)
    return gone


def tree() -> list[str]:
    """Machines, the checkpoints taken of them, the machines forked from those, and so on, one line each."""
    return _Tree().lines()


class _Tree:
    """Everything there is; each machine is shown once, also where one was restored from a checkpoint of its descendant."""

    def __init__(self) -> None:
        self._taken = every()
        self._records = {record.name: record for record in machines.machines()}
        self._shown: set[str] = set()

    def lines(self) -> list[str]:
        known = {one.name for one in self._taken}
        forked = {name for name, record in self._records.items() if record.parent in known}
        names = dict.fromkeys([*(one.machine for one in self._taken), *self._records])
        roots = sorted(names, key=lambda name: name in forked)
        return [line for root in roots for line in self._machine(root, 0)]

    def _machine(self, name: str, depth: int) -> Iterator[str]:
        if name in self._shown:
            return
        self._shown.add(name)
        record = self._records.get(name)
        yield f"{'  ' * depth}{name} {_state(record) if record else '(gone)'}"
        for one in self._taken:
            if one.machine == name:
                yield f"{'  ' * (depth + 1)}@{one.name} {one.kind}"
                for fork in self._records.values():
                    if fork.parent == one.name:
                        yield from self._machine(fork.name, depth + 2)


def _state(record: Record) -> str:
    return "running" if record.running else at_rest(record)
