"""Reading a peer's JSON with the shape it must have: what has another one is an error that says so, never a KeyError."""

from __future__ import annotations

import base64
import reprlib
from collections.abc import Mapping

from tinamou.errors import ControlError, TinamouError

__all__ = ["MOST_TEXT", "Reader", "flag", "member", "number", "record", "records", "shown", "text"]

MOST_TEXT = 64 << 10
"""Letters a text may have where nothing else is said."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
"""What int64 and uint64 hold, the widest numbers there are (source: QAPI, built-in types)."""


def shown(value: object) -> str:
    """A value for an error, whatever it is: a few members and letters of it."""
    return reprlib.repr(value)


class Reader:
    """Reads what ``who`` answered; what is not as it must be raises ``error``."""

    def __init__(self, who: str, error: type[TinamouError]) -> None:
        self._who, self._error = who, error

    def wrong(self, what: str, value: object) -> TinamouError:
        """The error for an answer that is no, or has no, ``what``."""
        return self._error(f"{self._who} answered what {what}", why=f"the answer: {shown(value)}")

    def record(self, value: object) -> Mapping[str, object]:
        """The value as a JSON object."""
        if not isinstance(value, Mapping):
            raise self.wrong("is no JSON object", value)
        return value

    def records(self, value: object) -> tuple[Mapping[str, object], ...]:
        """The value as a JSON array of objects."""
        if not isinstance(value, list | tuple):
            raise self.wrong("is no JSON array", value)
        return tuple(self.record(item) for item in value)

    def member(self, holder: Mapping[str, object], key: str) -> object:
        """A member of any kind, which must be there."""
        if key not in holder:
            raise self.wrong(f"has no {key!r}", holder)
        return holder[key]

    def text(self, holder: Mapping[str, object], key: str, default: str | None = None, *, most: int = MOST_TEXT) -> str:
        """A string member, of at most ``most`` letters."""
        value = holder.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(f"has no text {key!r}", holder)
        if len(value) > most:
            raise self.wrong(f"has {len(value)} letters in {key!r}, and {most} at most are expected", value)
        return value

    def number(
        self,
        holder: Mapping[str, object],
        key: str,
        default: int | None = None,
        *,
        least: int = _SMALLEST,
        most: int = _LARGEST,
    ) -> int:
        """An integer member from ``least`` to ``most``."""
        value = holder.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(f"has no number {key!r}", holder)
        if not least <= value <= most:
            raise self.wrong(f"has a number {key!r} that is out of all bounds", holder)
        return value

    def data(self, holder: Mapping[str, object], key: str, default: str | None = None, *, most: int) -> bytes:
        """A member that carries ``most`` bytes at most in base64."""
        letters = self.text(holder, key, default, most=-(-most // 3) * 4)
        try:
            return base64.b64decode(letters, validate=True)
        except ValueError:
            raise self.wrong(f"has no base64 in {key!r}", holder) from None

    def flag(self, holder: Mapping[str, object], key: str, default: bool | None = None) -> bool:
        """A boolean member."""
        value = holder.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(f"has no truth value {key!r}", holder)
        return value


_qemu = Reader("QEMU", ControlError)


def record(value: object) -> Mapping[str, object]:
    """What QEMU answered, as a JSON object. Raises ControlError, as those below."""
    return _qemu.record(value)


def records(value: object) -> tuple[Mapping[str, object], ...]:
    """As a JSON array of objects."""
    return _qemu.records(value)


def member(holder: Mapping[str, object], key: str) -> object:
    """A member of any kind, which must be there."""
    return _qemu.member(holder, key)


def text(holder: Mapping[str, object], key: str, default: str | None = None, *, most: int = MOST_TEXT) -> str:
    """A string member, of at most ``most`` letters."""
    return _qemu.text(holder, key, default, most=most)


def number(holder: Mapping[str, object], key: str, default: int | None = None, *, least: int = _SMALLEST) -> int:
    """An integer member of 64 bits, not below ``least``."""
    return _qemu.number(holder, key, default, least=least)


def flag(holder: Mapping[str, object], key: str, default: bool | None = None) -> bool:
    """A boolean member."""
    return _qemu.flag(holder, key, default)
