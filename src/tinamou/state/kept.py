"""The records of all machines for who looks again and again: one is read where its file is another, or has changed."""

from __future__ import annotations

import contextlib
import os
import time

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state.index import machines_dir
from tinamou.state.record import Record, read
from tinamou.system.plain_file import folder_fault

__all__ = ["Kept"]

_YOUNG_NS = 1_000_000_000
"""What was changed less than so long ago is read again: the next change could bear the same time."""

_Key = tuple[int, int]


class Kept:
    """What was read last of each machine: the record is the same object for as long as its file is the same."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Key | None, Record]] = {}
        self.odd: frozenset[str] = frozenset()
        """What lay beside the machines at the last look: folders without an entry, or with a damaged one."""

    def look(self) -> list[Record]:
        """Every machine, by name; as `machines.machines`, folders without an entry or with a damaged one are left out."""
        home, now, young = machines_dir(), dict[str, tuple[_Key | None, Record]](), time.time_ns() - _YOUNG_NS
        names = sorted(os.listdir(home))  # noqa: PTH208
        for name in names:
            with contextlib.suppress(OSError, StateError):  # said by whoever tidies up
                status = os.lstat(f"{home}/{name}/{files.RECORD}")
                key, kept = (status.st_ino, status.st_ctime_ns), self._known.get(name)
                if kept is not None and kept[0] == key:
                    now[name] = kept
                elif not folder_fault(home / name) and (record := read(home / name)) is not None:
                    now[name] = (key if status.st_ctime_ns < young else None), record
        self._known, self.odd = now, frozenset(names) - now.keys()
        return [record for _, record in now.values()]
