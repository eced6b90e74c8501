"""Plan → command line: spelling only, nothing is decided here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tinamou.blueprint import JSON_KINDS, Element, Flag, Plan, Value, Why

__all__ = ["argv", "keyval", "shell_line", "spelled"]

_ORDER = ("object", "chardev", "mon", "blockdev", "netdev", "tpmdev", "audiodev", "device")


def spelled(plan: Plan) -> list[tuple[tuple[str, ...], Why]]:
    """Every argument of the command line with its reason, in the order QEMU gets them."""
    flags = [(_flag(flag), flag.why) for flag in plan.flags]
    ranked = sorted(plan.elements, key=lambda e: _ORDER.index(e.kind) if e.kind in _ORDER else len(_ORDER))
    return [*flags, *((_element(element), element.why) for element in ranked)]


def argv(plan: Plan) -> list[str]:
    """The whole command line, as it can be run by hand."""
    return [plan.binary, *(word for words, _ in spelled(plan) for word in words)]


def shell_line(arguments: Sequence[str]) -> str:
    """The command line for pasting into a shell, one option a line."""
    import shlex

    lines, line = [], arguments[0]
    for word in arguments[1:]:
        if word.startswith("-"):
            lines.append(line)
            line = f"  {shlex.quote(word)}"
        else:
            line += f" {shlex.quote(word)}"
    return " \\\n".join([*lines, line])


def _flag(flag: Flag) -> tuple[str, ...]:
    if not flag.name:
        return (flag.value or "",)
    words = ",".join([*([flag.value] if flag.value is not None else []), *keyval(flag.options)])
    return (f"-{flag.name}", words) if words else (f"-{flag.name}",)


def _element(element: Element) -> tuple[str, str]:
    if element.kind in JSON_KINDS:
        return f"-{element.kind}", json.dumps(element.props, separators=(",", ":"))
    return f"-{element.kind}", ",".join([*filter(None, [element.head]), *keyval(element.props)])


def keyval(options: Mapping[str, Value]) -> list[str]:
    """``key=value`` words; a comma inside a value is doubled, as QEMU's parser wants it."""
    return [f"{key}={_scalar(value)}" for key, value in options.items()]


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
