"""Options that describe a machine, on the line of a verb that makes none: as the fields ``tinamou set`` would be given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tinamou import late
from tinamou.cli.described import assignment
from tinamou.cli.grammar import Argument, arguments
from tinamou.cli.options import MachineOptions
from tinamou.cli.verbs import function_of

__all__ = ["settings"]

_FIELD = re.compile(r"[a-z_]+[\w.\[\]]*[+-]?=.*", re.DOTALL)
_UNSAID = "VALUE"


def settings(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Of a verb's line what it does not take, the same as fields, and the words that are neither."""
    found = function_of(words)
    known = [one for one in arguments(found[0]) if one.place == "option"] if found else []
    own = {option: one for one in known for option in (*one.options, one.off)}
    rest = iter(words[1:])
    said: list[str] = []
    fields: list[str] = []
    places: list[str] = []
    for word in rest:
        name, equals, value = word.partition("=")
        if one := own.get(name):
            _skip(one, equals, rest)
        elif (key := _key(name)) in _OPTIONS:
            value = value if equals or key in _SWITCHES else next(rest, _UNSAID)
            said.append(name)
            fields.append(assignment(key, value))
        elif places and _FIELD.fullmatch(word):
            said, fields = ([*said, word] if words[0] != "set" else said), [*fields, assignment("set", word)]
        elif not name.startswith("-"):
            places.append(word)
    return said, fields, places


def _skip(one: Argument, equals: str, rest: Iterator[str]) -> None:
    """Pass over the value of an option that the verb has."""
    if one.hint is not bool and not equals:
        next(rest, None)


def _key(name: str) -> str:
    return name[2:].replace("-", "_") if name.startswith("--") else ""


_OPTIONS = {one.name for one in late.fields(MachineOptions)}
_SWITCHES = {one.name for one in late.fields(MachineOptions) if one.default is False}
