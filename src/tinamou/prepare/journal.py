"""What a machine took from the host, written down before it is taken, so that it can be given back after any crash.

``journal.jsonl`` in the machine's directory holds one JSON object a line: ``{"took": N, "kind": …, …}`` before a step is
done and ``{"gave": N}`` after it has been undone. A torn line is what a crash leaves: it is ignored, its step had not
begun, and the next entry starts on a line of its own.

What is taken is nearly always gone with the host's own restart (processes, interfaces, huge pages, control groups), and an
entry in the page cache outlives any process. Only what outlives a restart too is written through to the disk, which takes
milliseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Entry", "Journal"]

Entry = Mapping[str, object]


class Journal:
    """The receipt of one machine."""

    def __init__(self, directory: Path) -> None:
        self.path: Path = directory / "journal.jsonl"

    def open_entries(self) -> dict[int, Entry]:
        """What was taken and not yet given back, by number, oldest first."""
        taken: dict[int, Entry] = {}
        for record in self._records():
            number = record.get("took")
            if isinstance(number, int):
                taken[number] = record
            else:
                taken.pop(int(str(record.get("gave", -1))), None)
        return taken

    def take(self, kind: str, *, lasting: bool = False, **what: object) -> int:
        """Write down that something is about to be taken; the returned number closes the entry with `give`.

        ``lasting``: it outlives a restart of the host.
        """
        number = 1 + max((int(str(r["took"])) for r in self._records() if "took" in r), default=0)
        self._append({"took": number, "kind": kind, **what}, through=lasting)
        return number

    def give(self, number: int) -> None:
        """Write down that it has been given back."""
        self._append({"gave": number})

    def give_back(
        self, undo: Callable[[Entry], None], which: Callable[[Entry], bool] = lambda _: True
    ) -> list[tuple[Entry, Exception]]:
        """Undo everything open, newest first; what could not be undone stays open and is returned with the reason.

        With ``which`` only the entries it says yes to.
        """
        failed: list[tuple[Entry, Exception]] = []
        for number, entry in reversed(self.open_entries().items()):
            if not which(entry):
                continue
            try:
                undo(entry)
            except Exception as error:
                failed.append((entry, error))
            else:
                self.give(number)
        return failed

    def _append(self, record: Mapping[str, object], *, through: bool = False) -> None:
        with self.path.open("a") as file:
            file.write(f"\n{json.dumps(record)}\n")
            file.flush()
            if through:
                os.fdatasync(file.fileno())

    def _records(self) -> list[dict[str, object]]:
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records
