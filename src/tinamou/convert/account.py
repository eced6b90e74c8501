"""What of a source was read, kept by the reader's own cursors: whatever no rule has asked for becomes a note by itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping

from tinamou.convert.result import Draft, Rank

__all__ = ["HIDDEN", "Keys", "Rules", "hidden", "report"]

HIDDEN = "(not shown)"
"""Stands where a note would show a secret."""
_SECRET = re.compile(
    r"passw|passwd|(?<![-/])secret$|passphrase|keysafe|token|^osk$|private.?key|launch.?secret|hostkeys|vnc\.key|guestinfo\..*(data|pass)"
    r"|(^|/)(lockdownhash|hash\d|salt)$",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"secure|(?:pass(?:word|wd)|password)-?(?:valid|expire)|secret-?(?:type|usage|uuid)", re.IGNORECASE)

Rules = tuple[tuple[str, Rank, str, str], ...]
"""Where a value may stand (regular expressions over its whole place, blanks between); rank, reason and fix of its note."""

_UNKNOWN: tuple[Rank, str, str] = (
    "lost",
    "no rule of tinamou's reads this",
    "see docs/reference/spec.md, or keep it with qemu_args",
)


def hidden(key: str, value: str) -> str:
    """A value as a note may show it: not where its key says that it is a secret."""
    return HIDDEN if value and _is_secret(key) else value


@functools.lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key) and not _PLAIN.search(key))


class Keys(dict[str, str]):
    """Settings by key, which know which of them were asked for; of several joined into one, the later holds."""

    def __init__(self, *sources: Mapping[str, str]) -> None:
        super().__init__()
        for one in sources:
            dict.update(self, one)
        self._sources = [one for one in sources if isinstance(one, Keys)]
        self._unread = set(self)

    def _mark(self, key: str) -> None:
        self._unread.discard(key)
        for one in self._sources:
            one._mark(key)

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        """The value of a key, which counts as read."""
        self._mark(key)
        return dict.get(self, key, default)

    def __getitem__(self, key: str) -> str:
        self._mark(key)
        return dict.__getitem__(self, key)

    def pop(self, key: str, default: str = "") -> str:  # type: ignore[override]
        """The value of a key, which is taken out, and counts as read."""
        self._mark(key)
        return dict.pop(self, key, default)

    def read(self, *keys: str) -> None:
        """Count keys as read: a note shows them, or their values have no meaning here."""
        for key in keys:
            self._mark(key)

    def all_read(self) -> None:
        """Count everything as read: a note shows it whole."""
        self.read(*self)

    def unread(self) -> Iterator[tuple[str, str]]:
        """What nobody asked for, in its order."""
        return ((key, value) for key, value in self.items() if key in self._unread)


class _Table:
    """Rules as patterns, and what they say of the places there have been."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._compiled = [(re.compile("|".join(one[0].split()), re.IGNORECASE), one[1:]) for one in rules]
        self.of = functools.lru_cache(maxsize=4096)(self._of)

    def _of(self, place: str) -> tuple[Rank, str, str] | None:
        """Rank, reason and fix of what stands at a place."""
        return next((said for pattern, said in self._compiled if pattern.fullmatch(place)), None)


_TABLES: dict[int, _Table] = {}
"""By the identity of the rules, which are each a module's own: their hash is as long as they are."""


def report(draft: Draft, left: Iterable[tuple[str, str]], rules: Rules) -> None:
    """A note on everything that was not read: those of one rule in one note, what no rule knows each in its own."""
    table = _TABLES.get(id(rules)) or _TABLES.setdefault(id(rules), _Table(rules))
    together: dict[tuple[Rank, str, str], list[tuple[str, str]]] = {}
    for place, value in left:
        shown = hidden(place, value)
        if found := table.of(place):
            together.setdefault(found, []).append((place, shown))
        else:
            draft.note(_UNKNOWN[0], place, shown, *_UNKNOWN[1:])
    for (rank, reason, fix), places in together.items():
        value = "; ".join(f"{place} {shown}".strip() for place, shown in places[1:])
        where, first = places[0]
        draft.note(rank, where, f"{first}; {value}" if value else first, reason, fix)
