"""What is written about single fields of a description, ``net[0].forward+=tcp:8080:80``, put into plain data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tinamou import fields, late
from tinamou.errors import Problem, SpecError
from tinamou.spec import ELEMENTS, SHORT, MachineSpec, shorthand

__all__ = ["assign", "listed", "put", "table_of", "value_of", "with_lists"]

_FORM = re.compile(r"([A-Za-z_][\w.\[\]]*?)(\+=|-=|=)(.*)", re.DOTALL)
_STEP = re.compile(r"([A-Za-z_]\w*)((?:\[\d+\])?)")
_EXAMPLE = "write for example memory=8G, net[0].forward+=tcp:8080:80, net[0].forward-=tcp:8080:80, seed.user="

Step = str | int
"""A field's name, or the number of an element."""


def assign(data: dict[str, Any], assignments: Iterable[str], *, said: str = "--set") -> None:
    """Put assignments into a description as plain data, in their order: ``=`` sets, ``+=`` and ``-=`` change a list.

    ``field=`` with nothing behind it takes the field out, so that its default holds. Values are TOML, plain text where they
    are not. Raises SpecError with every one that cannot be; ``said`` is what they are called in it.
    """
    problems = [found for one in assignments if (found := _assign(data, one, said))]
    if problems:
        raise SpecError(f"{said} is not understood", problems=problems)


def put(data: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Put fields into a description as a program writes them; a table's fields that are not named stay as they are."""
    for key, value in settings.items():
        path = _spread(data, [key])
        node = data
        for step in path[:-1]:
            node = node.setdefault(str(step), {})
        name = str(path[-1])
        there = node.get(name)
        if isinstance(value, Mapping) and isinstance(there, dict):
            there.update(value)
        elif isinstance(there, dict) and (short := shorthand(name)):
            there[short] = value
        else:
            node[name] = value


def with_lists(spec: MachineSpec, data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data of a spec with the lists that have their default, whose elements can be named then."""
    whole = {one.name: fields.plain(getattr(spec, one.name)) for one in late.fields(spec) if one.name not in data}
    return {**{name: value for name, value in whole.items() if isinstance(value, list)}, **data}


def listed(value: object) -> list[Any]:
    """A list as it is, anything else as the only element of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def table_of(text: str) -> object:
    """``"type=user,model=e1000"`` as a table, a bare word as it is; a repeated key becomes a list."""
    if "=" not in text or os.path.exists(text):  # noqa: PTH110
        return text
    table: dict[str, Any] = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        parsed = value_of(value)
        table[key] = [*listed(table[key]), parsed] if key in table else parsed
    return table


def value_of(text: str) -> object:
    """A value as TOML writes it, plain text where it is none."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _assign(data: dict[str, Any], assignment: str, said: str) -> Problem | None:
    match = _FORM.fullmatch(assignment)
    steps = _steps(match[1]) if match else None
    if match is None or steps is None:
        return Problem(said, assignment, "not of the form field=value", _EXAMPLE)
    path, sign, text = _spread(data, steps), match[2], match[3]
    try:
        node = _at(data, path)
        _change(node, path, sign, text)
    except LookupError as error:
        return Problem(match[1], text, str(error.args[0]), str(error.args[1]))
    return None


def _steps(path: str) -> list[Step] | None:
    """``net[0].forward`` → net, 0, forward; None for what is no path."""
    steps: list[Step] = []
    for part in path.split("."):
        match = _STEP.fullmatch(part)
        if match is None:
            return None
        steps.append(match[1])
        steps += [int(match[2][1:-1])] if match[2] else []
    return steps


def _spread(data: Mapping[str, Any], path: list[Step]) -> list[Step]:
    """The path with the field that its short name stands for; one that is written short already stays so."""
    first = str(path[0])
    return [*SHORT[first].split("."), *path[1:]] if first in SHORT and first not in data else path


def _at(data: dict[str, Any], path: list[Step]) -> Any:
    """The table, or list, that holds the last step. Raises LookupError with a reason and a fix."""
    node: Any = data
    for number, step in enumerate(path[:-1]):
        inner = _element(node, step, path[: number + 1]) if isinstance(step, int) else _field(node, step, path[number + 1])
        if not isinstance(inner, dict | list):
            short = shorthand(str(path[0])) if number == 0 or isinstance(step, int) else ""
            if not short:
                raise LookupError(f"{_written(path[: number + 1])} is already given as {inner!r}", "give it as a table")
            inner = {short: inner}
        node[step] = inner
        node = inner
    return node


def _field(node: Any, name: str, after: Step) -> Any:
    if not isinstance(node, dict):
        raise LookupError(f"{name} stands behind a list", f"number its element, as in net[0].{name}")
    if name in node:
        return listed(node[name]) if isinstance(after, int) else node[name]
    return _default(name) if isinstance(after, int) else {}


def _element(node: Any, number: int, path: list[Step]) -> Any:
    if not isinstance(node, list) or number >= len(node):
        has = f"it has {len(node)}" if isinstance(node, list) else "it is no list"
        raise LookupError(f"there is no {_written(path)}: {has}", "elements are counted from 0; += adds one")
    return node[number]


def _default(name: str) -> list[Any]:
    """The elements that a list at the top has where nothing is said of it."""
    given = getattr(MachineSpec(), name, ())
    return list(fields.plain(given)) if isinstance(given, tuple) else []


def _change(node: Any, path: list[Step], sign: str, text: str) -> None:
    last, whole = path[-1], _written(path)
    if isinstance(last, int):
        _element(node, last, path)
        if sign != "=":
            raise LookupError(f"{whole} is one element", f"{whole}= takes it out, {whole[: whole.rindex('[')]}+= adds one")
        _set_element(node, last, text, str(path[-2]))
    elif not isinstance(node, dict):
        raise LookupError(f"{whole} stands behind a list", "number its element, as in net[0].model")
    elif sign == "=":
        _set(node, last, text, top=len(path) == 1)
    else:
        _add_or_take(node, last, sign, text, top=len(path) == 1)


def _set(node: dict[str, Any], name: str, text: str, *, top: bool) -> None:
    short = shorthand(name) if top else ""
    if not text:
        node.pop(name, None)
    elif isinstance(node.get(name), dict) and short:
        node[name][short] = value_of(text)
    else:
        node[name] = value_of(text)


def _set_element(node: list[Any], number: int, text: str, name: str) -> None:
    if text:
        node[number] = table_of(text) if name in ELEMENTS else value_of(text)
    elif name == "net":
        node[number] = {"type": "none"}  # the others keep their numbers
    else:
        del node[number]


def _add_or_take(node: dict[str, Any], name: str, sign: str, text: str, *, top: bool) -> None:
    there = listed(node[name]) if name in node else _default(name) if top else []
    values = [table_of(text)] if top and name in ELEMENTS else listed(value_of(text))
    if sign == "+=":
        node[name] = [*there, *values]
        return
    for value in values:
        if value not in there:
            has = ", ".join(map(str, there)) or "nothing"
            raise LookupError(f"{value} is not in it: it has {has}", f"write it as it stands there, or {name}[0]=")
        there.remove(value)
    node[name] = there


def _written(path: list[Step]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{step}"
    return text
