"""What is kept of sandboxes and of their snapshots: one JSON file for each in the state directory, replaced whole.

::

    STATE/sandboxes/ID.json             a sandbox: its machine, whose it is, until when it lives
    STATE/sandboxes/snapshots/ID.json   a snapshot: its checkpoint has the same name
    STATE/sandboxes/lock                held by the service that serves them

What is read is believed where each field is of its kind and the id is the file's name; anything else is no entry.
"""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from tinamou import fields, late
from tinamou.errors import Problem
from tinamou.late import dataclass, field
from tinamou.spec import NAME
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text

__all__ = ["Entry", "Shelf", "Snapshot", "fresh_id", "sandboxes_dir"]

_MOST = 4 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A sandbox. ``owner`` is whose token made it; ``token`` opens its files and commands.

    ``started`` and ``deadline`` are seconds since 1970, ``deadline`` 0 while it is paused; then it is paused again where
    ``auto_pause``, else ended. ``user`` runs commands that name none. ``checkpoint`` is what its machine is a fork of and
    nobody else needs. ``request`` is the key its maker gave his request. ``ready`` is false while its machine is made.
    """

    id: str
    machine: str
    owner: str
    template: str
    token: str
    started: float
    deadline: float
    metadata: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    auto_pause: bool = False
    user: str = ""
    checkpoint: str = ""
    request: str = ""
    ready: bool = False

    def problems(self) -> list[Problem]:
        """What no sandbox is: names that lead elsewhere, times that never come, variables that are no text."""
        odd = [name for name in ("id", "machine", "checkpoint") if not _plain(getattr(self, name), name == "checkpoint")]
        odd += [name for name in ("started", "deadline") if not math.isfinite(getattr(self, name))]
        odd += [name for name in ("metadata", "env") if not _texts(getattr(self, name))]
        return [Problem(name, getattr(self, name), "not of its kind") for name in odd]


@dataclass(frozen=True)
class Snapshot:
    """The saved state of a sandbox, by the id that is its checkpoint's name, and the names it was given."""

    id: str
    owner: str
    sandbox: str
    created: float
    names: tuple[str, ...] = ()
    user: str = ""

    def problems(self) -> list[Problem]:
        """What no snapshot is: a name that leads elsewhere, a time that never was."""
        odd = [name for name in ("id", "sandbox") if not _plain(getattr(self, name))]
        odd += [] if math.isfinite(self.created) else ["created"]
        return [Problem(name, getattr(self, name), "not of its kind") for name in odd]


def _plain(text: str, empty: bool = False) -> bool:
    """Whether it is a name of a machine or of a checkpoint."""
    return (empty and not text) or bool(re.fullmatch(NAME, text))


def _texts(table: dict[str, str]) -> bool:
    return all(isinstance(one, str) for pair in table.items() for one in pair)


Kept = TypeVar("Kept", Entry, Snapshot)


def sandboxes_dir() -> Path:
    """Where they are kept; made when missing."""
    folder = state_dir() / "sandboxes"
    (folder / "snapshots").mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def fresh_id(prefix: str) -> str:
    """An id nobody has: E2B's proxies take small letters and digits alone."""
    return prefix + secrets.token_hex(10)


class Shelf(Generic[Kept]):
    """The entries of one kind in one folder, in memory and on disk; only one process writes there."""

    def __init__(self, folder: Path, kind: type[Kept]) -> None:
        self._folder = folder
        self._kept: dict[str, Kept] = {one.id: one for one in _read(folder, kind)}

    def __iter__(self) -> Iterator[Kept]:
        return iter(list(self._kept.values()))

    def get(self, key: str) -> Kept | None:
        """The entry of that id."""
        return self._kept.get(key)

    def put(self, one: Kept) -> Kept:
        """Keep an entry, instead of the one with its id."""
        replace_text(self._folder / f"{one.id}.json", json.dumps(late.asdict(one), indent=1))
        self._kept[one.id] = one
        return one

    def drop(self, key: str) -> None:
        """Forget an entry."""
        self._kept.pop(key, None)
        (self._folder / f"{key}.json").unlink(missing_ok=True)


def _read(folder: Path, kind: type[Kept]) -> Iterator[Kept]:
    known = {one.name for one in late.fields(kind)}
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(read_own(path, most=_MOST))
            found, problems = fields.load(kind, {key: value for key, value in data.items() if key in known})
            if found is None:
                raise ValueError("; ".join(map(str, problems)))
            if found.id != path.stem:
                raise ValueError(f"it is of {found.id}")
            yield found
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("%s is no entry of a sandbox: %s; remove it, and its machine with tinamou rm", path, error)
