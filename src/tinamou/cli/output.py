"""What commands print: results to stdout as table or JSON, progress and warnings to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tinamou.system.shown import unguarded, visible

if TYPE_CHECKING:
    from tinamou.blueprint import Note

__all__ = ["fields", "lines", "notes", "print_json", "progress", "result", "say", "table", "waits", "warn", "when"]


def print_json(data: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, default=str))


def result(data: object, text: object, *, json: bool) -> None:
    """What a verb has done or found: the data as JSON, or in words."""
    print_json(data) if json else print(text)


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, json: bool = False) -> None:
    """Rows under a heading, columns as wide as they need to be, nothing where there are no rows; or as JSON, whole."""
    if json:
        print_json(rows)
    else:
        lines(columns, [[str(row.get(column, "")) for column in columns] for row in rows])


def fields(data: Mapping[str, object], width: int, *, json: bool) -> None:
    """One thing, a field in each line, their names ``width`` wide; or as JSON."""
    if json:
        print_json(data)
        return
    for key, value in data.items():
        print(f"{key:>{width}}  {value}")


def when(seconds: float) -> str:
    """A moment, by the clock on the wall."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The same of texts in the order of the columns."""
    if not rows:
        return
    cells = [[column.upper() for column in columns], *map(_cells, rows)]
    form = "  ".join(f"{{:{max(map(len, column))}}}" for column in zip(*cells, strict=True)).format
    print("\n".join([form(*line).rstrip() for line in cells]))


def _cells(row: Sequence[str]) -> Sequence[str]:
    return row if "".join(row).isprintable() else [visible(text).replace("\n", " ") for text in row]


def warn(*texts: str) -> None:
    """A loud line on stderr for each."""
    for shown in map(visible, texts):
        marked = f"\x1b[33m{shown}\x1b[0m" if sys.stderr.isatty() else shown
        print(f"tinamou: {marked}\n", end="", file=unguarded(sys.stderr))  # at once: a request to end is before it or after


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr)


def waits(text: str, _: float | None = None) -> None:
    """What is waited for, as a line on stderr."""
    say(f"tinamou: {text}")


def notes(every: Iterable[Note], *, why: bool = False) -> None:
    """What the user must hear about a plan, once a day where it is of the host; with ``why`` all of it, and remarks."""
    from tinamou.state.told import told_lately

    for note in every:
        if why or (note.level != "remark" and not (note.of_host and told_lately(note.text))):
            warn(f"{note.text} ({note.why.asked_by}: {note.why.reason})" if note.level == "remark" else note.text)


_last = [""]


def progress(text: str, fraction: float | None) -> None:
    """A line that is rewritten on a terminal, and one line for each new step elsewhere."""
    if sys.stderr.isatty():
        share = f" {fraction:4.0%}" if fraction is not None else ""
        end = "\n" if fraction == 1 else ""
        print(f"\r\x1b[K{visible(text)}{share}", end=end, file=unguarded(sys.stderr), flush=True)
    elif text != _last[0]:
        print(text, file=sys.stderr, flush=True)
    _last[0] = text


def end_progress() -> None:
    """Leave the progress line."""
    if _last[0] and sys.stderr.isatty():
        print("\r\x1b[K", end="", file=unguarded(sys.stderr), flush=True)
    _last[0] = ""
