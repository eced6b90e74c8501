"""A machine as the text of a machine file: short names where they say it all, tables in the order of the reference."""

from __future__ import annotations

import json
from typing import Any

from tinamou import late
from tinamou.spec import SHORT, MachineSpec

__all__ = ["text"]

_SHORTHANDS = {"memory": "size", "display": "type", "tpm": "enabled"}


def text(machine: dict[str, Any], about: str) -> str:
    """The machine file, under a comment of what it is ``about``."""
    import tomlkit

    order = [field.name for field in late.fields(MachineSpec)]
    top: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for key, value in sorted(machine.items(), key=lambda item: order.index(item[0])):
        short = _short(key, value)
        inside = isinstance(short[1], dict) or (isinstance(short[1], list) and any(isinstance(v, dict) for v in short[1]))
        (tables if inside else top)[short[0]] = short[1]
    head = "\n".join(f"# {_plain(line)}" for line in about.splitlines())
    return f"{head}\n{tomlkit.dumps(_quoted({**top, **tables}))}"


def _plain(line: str) -> str:
    return "".join(one if one.isprintable() else "�" for one in line)


def _quoted(value: Any) -> Any:
    """The same with its texts as TOML: what tomlkit does takes time that grows with the square of what is to be escaped."""
    from tomlkit.items import String, StringType, Trivia

    if isinstance(value, dict):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(inner) for inner in value]
    if not isinstance(value, str):
        return value
    escaped = json.dumps(value, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")
    return String(StringType.SLB, value, escaped, Trivia())


def _short(key: str, value: Any) -> tuple[str, Any]:
    """A table with one field under its short name."""
    if not isinstance(value, dict) or len(value) != 1:
        return key, value
    [(field, only)] = value.items()
    if _SHORTHANDS.get(key) == field:
        return key, only
    return next(((short, only) for short, long in SHORT.items() if long == f"{key}.{field}"), (key, value))
