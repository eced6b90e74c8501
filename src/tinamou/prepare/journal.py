"""What a machine took from the host, written down before it is taken, so that it can be given back after any crash.

``journal.jsonl`` in the machine's directory holds one JSON object a line: ``{"took": N, "kind": …, …}`` before a step is
done and ``{"gave": N}`` after it has been undone. A torn line is what a crash leaves: it is ignored, its step had not
begun, and the next entry starts on a line of its own.

What is taken is nearly always gone with the host's own restart (processes, interfaces, huge pages, control groups), and an
entry in the page cache outlives any process. Only what outlives a restart too is written through to the disk, which takes
milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.system.lock import take
from tinamou.system.plain_file import read_own

__all__ = ["Entry", "Journal"]

Entry = Mapping[str, object]
_TAIL = 4096
_MOST = 256 << 20


class Journal:
    """The receipt of one machine."""

    def __init__(self, directory: Path) -> None:
        self.path: Path = directory / files.JOURNAL

    def open_entries(self) -> dict[int, Entry]:
        """What was taken and not yet given back, by number, oldest first.

        Raises StateError for a journal that others can write to: nothing in it is acted on.
        """
        try:
            lines = read_own(self.path, most=_MOST).decode(errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            fix = "see whose it is; nothing is given back by what others can write to"
            raise StateError(f"the journal of {self.path.parent.name} is not read", why=str(error), fix=fix) from error
        taken: dict[int, Entry] = {}
        for record in _records(lines):
            number = record.get("took")
            if isinstance(number, int):
                taken[number] = record
            else:
                taken.pop(int(str(record.get("gave", -1))), None)
        return taken

    def take(self, kind: str, *, lasting: bool = False, **what: object) -> int:
        """Write down that something is about to be taken; the returned number closes the entry with `give`.

        ``lasting``: it outlives a restart of the host. No two entries have the same number, whoever writes at the same time.
        """
        with self._held() as file:
            number = 1 + _last_number(file)
            _append(file, {"took": number, "kind": kind, **what}, through=lasting)
        return number

    def add(self, number: int, **what: object) -> None:
        """Write down more of what was taken: what is known only now that it has been."""
        entry = self.open_entries().get(number)
        if entry is not None:
            with self._held() as file:
                _append(file, {**entry, **what})

    def give(self, number: int) -> None:
        """Write down that it has been given back."""
        with self._held() as file:
            _append(file, {"gave": number})

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

    @contextlib.contextmanager
    def _held(self) -> Iterator[IO[bytes]]:
        """The journal, open for reading and appending; nobody else's until the block ends."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            take(descriptor, self.path)
            yield file


def _append(file: IO[bytes], record: Mapping[str, object], *, through: bool = False) -> None:
    file.write(f"\n{json.dumps(record)}\n".encode())
    if through:
        os.fdatasync(file.fileno())


def _last_number(file: IO[bytes]) -> int:
    """The number of the newest entry, 0 where there is none; numbers only grow, so its end tells."""
    size = file.seek(0, os.SEEK_END)
    for start in (max(size - _TAIL, 0), 0):
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
        numbers = [int(str(record["took"])) for record in _records(lines) if "took" in record]
        if numbers:
            return max(numbers)
    return 0


def _records(lines: list[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record
