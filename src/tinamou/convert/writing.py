"""A machine as the text of a machine file: short names where they say it all, tables in the order of the reference."""

from __future__ import annotations

import functools
import re
from json.encoder import encode_basestring
from typing import Any

from tinamou import late
from tinamou.spec import SHORT, MachineSpec

__all__ = ["text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORTHANDS = {"memory": "size", "display": "type", "tpm": "enabled"}


def text(machine: dict[str, Any], about: str) -> str:
    """The machine file, under a comment of what it is ``about``."""
    order = _order()
    short = dict(_short(key, machine[key]) for key in sorted(machine, key=order.__getitem__))
    lines = [f"# {_plain(line)}" for line in about.splitlines()]
    tables: list[str] = []
    for key, value in short.items():
        if not (inside := _tables(value)):
            lines.append(f"{_key(key)} = {_value(value)}")
        head = f"[[{_key(key)}]]" if isinstance(value, list) else f"[{_key(key)}]"
        for table in inside:
            tables += ["", head, *(f"{_key(inner)} = {_value(one)}" for inner, one in table.items())]
    lines += tables
    return "\n".join([*lines, ""])


@functools.cache
def _order() -> dict[str, int]:
    """Name → place of every field of a machine."""
    return {field.name: place for place, field in enumerate(late.fields(MachineSpec))}


def _tables(value: Any) -> list[dict[str, Any]]:
    """What is written as a table, or as several of one name."""
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else []


def _plain(line: str) -> str:
    return line if line.isprintable() else "".join(one if one.isprintable() else "�" for one in line)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    """As TOML writes it: a text as JSON does, but for one character that JSON lets stand; a table in braces."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return encode_basestring(str(value)).replace("\x7f", "\\u007f")


def _short(key: str, value: Any) -> tuple[str, Any]:
    """A table with one field under its short name."""
    if not isinstance(value, dict) or len(value) != 1:
        return key, value
    [(field, only)] = value.items()
    if _SHORTHANDS.get(key) == field:
        return key, only
    return next(((short, only) for short, long in SHORT.items() if long == f"{key}.{field}"), (key, value))
