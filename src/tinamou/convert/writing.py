"""A machine as the text of a machine file: short names where they say it all, tables in the order of the reference."""

from __future__ import annotations

import json
import re
from typing import Any

from tinamou import late
from tinamou.spec import SHORT, MachineSpec

__all__ = ["text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORTHANDS = {"memory": "size", "display": "type", "tpm": "enabled"}


def text(machine: dict[str, Any], about: str) -> str:
    """The machine file, under a comment of what it is ``about``."""
    order = [field.name for field in late.fields(MachineSpec)]
    short = dict(_short(key, value) for key, value in sorted(machine.items(), key=lambda item: order.index(item[0])))
    lines = [f"# {_plain(line)}" for line in about.splitlines()]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in short.items() if not _tables(value)]
    for key, value in short.items():
        head = f"[[{_key(key)}]]" if isinstance(value, list) else f"[{_key(key)}]"
        for table in _tables(value):
            lines += ["", head, *(f"{_key(inner)} = {_value(one)}" for inner, one in table.items())]
    return "\n".join([*lines, ""])


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
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _short(key: str, value: Any) -> tuple[str, Any]:
    """A table with one field under its short name."""
    if not isinstance(value, dict) or len(value) != 1:
        return key, value
    [(field, only)] = value.items()
    if _SHORTHANDS.get(key) == field:
        return key, only
    return next(((short, only) for short, long in SHORT.items() if long == f"{key}.{field}"), (key, value))
