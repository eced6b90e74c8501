"""Reading JSON answers with their expected shape; an answer of another shape is a ControlError, not a KeyError."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.errors import ControlError

__all__ = ["flag", "number", "record", "records", "text"]


def record(value: object) -> Mapping[str, object]:
    """The value as a JSON object."""
    if not isinstance(value, Mapping):
        raise ControlError("The answer is not a JSON object", why=repr(value))
    return value


def records(value: object) -> tuple[Mapping[str, object], ...]:
    """The value as a JSON array of objects."""
    if not isinstance(value, list | tuple):
        raise ControlError("The answer is not a JSON array", why=repr(value))
    return tuple(record(item) for item in value)


def text(holder: Mapping[str, object], key: str, default: str | None = None) -> str:
    """A string member."""
    value = holder.get(key, default)
    if not isinstance(value, str):
        raise ControlError(f"The answer has no text {key!r}", why=repr(dict(holder)))
    return value


def number(holder: Mapping[str, object], key: str, default: int | None = None) -> int:
    """An integer member."""
    value = holder.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ControlError(f"The answer has no number {key!r}", why=repr(dict(holder)))
    return value


def flag(holder: Mapping[str, object], key: str, default: bool | None = None) -> bool:
    """A boolean member."""
    value = holder.get(key, default)
    if not isinstance(value, bool):
        raise ControlError(f"The answer has no truth value {key!r}", why=repr(dict(holder)))
    return value
