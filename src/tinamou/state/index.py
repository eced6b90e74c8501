"""What every machine at rest is, in one small file: who asks about all of them need not read the record of each.

The machines' folders are the truth. A row counts while the machine's record is the very file it was made of, unchanged since
in text, owner and rights, and is made anew where it is not; so an index that is missing, old or damaged costs time alone. A
machine has a row while nothing is to be done for it: it does not run, nobody has it in hand, it stays, it is not
suspended, it is not on its way to another host or gone there, its disks are not replicated, and no rename of it was cut
short. None of that changes
without a change of its record, or of its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state import uids
from tinamou.state.record import Record, read
from tinamou.state.replicated import wanted
from tinamou.system.closing import Closing
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import folder_fault, read_own
from tinamou.system.replaced import replace_text

__all__ = ["Look", "Row", "look", "machines_dir", "shape_of"]

_FILE = "index.json"
_FORMAT = 4
_MOST = 64 << 20
_YOUNG_NS = 1_000_000_000
"""What was changed less than so long ago has no row: the next change could bear the same time."""
_KEY, _UID, _IDENTITY = 2, -2, -1
_TYPES = ((str,), (str,), (str,), (int, float), (int,), (str,), (int, NoneType), (str,))


Row = tuple[str, str, str, str, float, int, str, int | None, str]
"""A machine at rest: name, image, architecture, accelerator, when it was made, virtual CPUs, memory as it was asked for, the
user id its folder says it has, and the name its identity is made of. CPUs are 0 and memory is empty where the description
leaves them to tinamou."""


class Look:
    """All machines at one moment: ``rows`` of those at rest, the folders of the ``others``, by name, and what is ``odd``.

    ``awake`` are the records of the others as they were then.
    """

    def __init__(
        self, plain: dict[str, list[Any]], others: list[Path], odd: list[str], awake: Sequence[Record] = ()
    ) -> None:
        self._plain = plain
        self.others: list[Path] = sorted(others)
        self.awake: list[Record] = sorted(awake, key=lambda record: record.path)
        self.odd: list[str] = sorted(odd)

    def rows(self) -> list[Row]:
        """The machines at rest, by name."""
        return [(name, *plain[_KEY:]) for name, plain in sorted(self._plain.items())]

    def uids(self) -> dict[str, int]:
        """Folder → user id, of the machines at rest that have one."""
        home = machines_dir()
        return {f"{home}/{name}": plain[_UID] for name, plain in self._plain.items() if plain[_UID] is not None}

    def identities(self) -> set[str]:
        """The names that the identities of the machines at rest are made of."""
        return {plain[_IDENTITY] for plain in self._plain.values()}


def machines_dir() -> Path:
    """Where the machines' folders are; other users can pass through it but not list it."""
    path = state_dir() / "machines"
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o711)
    return path


def look() -> Look:
    """Look at every folder, and into those that have changed since somebody last did."""
    home, stored = machines_dir(), _stored()
    rows, changed = _unchanged(home, stored)
    faults = {path: fault for path in changed if (fault := folder_fault(path)) and os.path.lexists(path)}
    others, awake = [], []
    for path in (path for path in changed if path not in faults and path.is_dir()):
        row, record = _row(path)
        if row:
            rows[path.name] = row
            continue
        others.append(path)
        if record is not None:
            awake.append(record)
    if rows != stored:
        with contextlib.suppress(OSError):
            replace_text(state_dir() / _FILE, json.dumps({"format": _FORMAT, "rows": rows}, separators=(",", ":")))
    return Look(rows, others, [f"{fault}: it is left alone" for fault in faults.values()], awake)


def _unchanged(home: Path, stored: Mapping[str, list[Any]]) -> tuple[dict[str, list[Any]], list[Path]]:
    """The rows that hold still, and what has none. This is done for every machine: one system call, little besides."""
    rows, others, lstat = {}, [], os.lstat
    with Closing(os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder, os.scandir(folder) as entries:
        for entry in entries:
            if (row := stored.get(name := entry.name)) is not None and entry.is_dir(follow_symlinks=False):
                try:
                    status = lstat(f"{name}/{files.RECORD}", dir_fd=folder)
                except OSError:
                    status = None
                if status and status.st_ino == row[0] and status.st_ctime_ns == row[1]:
                    rows[name] = row
                    continue
            others.append(home / name)
    return rows, others


_kept: dict[tuple[int, int, int, int], dict[str, list[Any]]] = {}
"""What the file says that was read last, by which file that is: who looks again and again reads it once."""


def _stored() -> dict[str, list[Any]]:
    path = state_dir() / _FILE
    try:
        there = path.lstat()
        if (known := _kept.get(key := (there.st_dev, there.st_ino, there.st_ctime_ns, there.st_size))) is not None:
            return known
        data = json.loads(read_own(path, most=_MOST))
        rows = data["rows"] if data["format"] == _FORMAT else {}
        found: dict[str, list[Any]] = rows if all(map(_sound, rows.values())) else {}
        _kept.clear()
        _kept[key] = found
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _sound(row: Any) -> bool:
    if type(row) is not list or len(row) != _KEY + len(_TYPES):
        return False
    return all(type(value) in kinds for value, kinds in zip(row[_KEY:], _TYPES, strict=True))


def _row(path: Path) -> tuple[list[Any] | None, Record | None]:
    """A machine's row, where it can have one, and its record, where that can be read."""
    record = None
    with contextlib.suppress(OSError, StateError):  # said by whoever tidies up
        before = os.lstat(path / files.RECORD)
        record = read(path)
        if record is not None and _at_rest(record) and before.st_ctime_ns < time.time_ns() - _YOUNG_NS:
            key = [before.st_ino, before.st_ctime_ns]  # also of a change of owner or rights
            shape = shape_of(record)
            row = [*key, record.image, record.arch, record.accel, record.created, *shape, uids.of(path), record.identity]
            after = os.lstat(path / files.RECORD)
            return row if [after.st_ino, after.st_ctime_ns] == key else None, record
    return None, record


def shape_of(record: Record) -> tuple[int, str]:
    """The virtual CPUs and the memory that were asked for, 0 and empty where none were."""
    cpu, memory = record.spec.get("cpu"), record.spec.get("memory")
    count = cpu.get("count", 0) if isinstance(cpu, dict) else 0
    size = memory.get("size", "") if isinstance(memory, dict) else ""
    return count if type(count) is int else 0, str(size)


def _at_rest(record: Record) -> bool:
    taken = record.pid or record.owner_pid or record.ephemeral or record.move.get("phase")
    taken = taken or record.replicated or wanted(record)
    return not taken and not any(os.path.lexists(record.file(name)) for name in (files.SUSPENDED, files.RENAMED))
