"""Nested data of other tools (JSON, YAML, property lists), by a cursor that knows what was read.

All values are texts, as they are written: YAML's own ideas of numbers make a time of a MAC address. YAML's anchors are taken
as they are, its merge keys are keys like others. Source: YAML 1.1; RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tinamou.convert.account import hidden
from tinamou.convert.result import Draft
from tinamou.errors import SpecError

__all__ = ["Node", "bounded", "of_json", "of_yaml"]

_DEEPEST, _MOST, _LONGEST_YAML = 32, 20_000, 256 << 10
_Value = TypeVar("_Value")


class Node:
    """One value and its place, ``spec.disks[0].name``; falsy where it is not there. What is asked of it counts as read."""

    def __init__(self, value: Any, place: str = "") -> None:
        self.place: str = place
        self._read = False
        self._text = "" if isinstance(value, dict | list) else _said(value)
        self._there = value is not None
        self._inside: dict[str, Node] = {}
        self._listed = isinstance(value, list)
        self._empty = "[]" if value == [] else "{}" if value == {} else ""
        if isinstance(value, dict):
            self._inside = {key: Node(one, f"{place}.{key}".lstrip(".")) for key, one in value.items()}
        elif isinstance(value, list):
            self._inside = {str(at): Node(one, f"{place}[{at}]") for at, one in enumerate(value)}

    def __bool__(self) -> bool:
        return self._there

    def at(self, path: str) -> Node:
        """What is at a path of keys with dots between; keys that have dots in them: `key`."""
        found = self
        for name in path.split("."):
            found = found.key(name)
        return found

    def key(self, name: str) -> Node:
        """The value of one key."""
        return self._inside.get(name) or Node(None, f"{self.place}.{name}".lstrip("."))

    def items(self) -> list[Node]:
        """What is in a list."""
        return list(self._inside.values()) if self._listed else []

    def pairs(self) -> list[tuple[str, Node]]:
        """What is in a table."""
        return [] if self._listed else list(self._inside.items())

    @property
    def text(self) -> str:
        """A single value; empty where it is none. It counts as read, and so does a table with nothing in it."""
        self._read = True
        return self._text

    def text_at(self, path: str) -> str:
        """The single value at a path."""
        return self.at(path).text

    def has(self, path: str) -> bool:
        """Whether there is anything at a path: ``masquerade: {}`` says something by being there."""
        found = self.at(path)
        found._read = found._read or bool(found._empty) or not found._inside
        return bool(found)

    def on(self, path: str, default: bool = False) -> bool:
        """A switch."""
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            self.text_at(path).lower(), default
        )

    def rename(self, place: str) -> None:
        """Give it another place, and all that is in it."""
        old, self.place = self.place, place
        for one in self._inside.values():
            one.rename(place + one.place.removeprefix(old))

    def put(self, draft: Draft, path: str, field: str, meant: Callable[[str], _Value | None]) -> _Value | None:
        """Set a field of the machine to what the text at a path means; a text without a meaning is told."""
        return self.at(path).give(draft, field, meant)

    def give(self, draft: Draft, field: str, meant: Callable[[str], _Value | None]) -> _Value | None:
        """The same with this very value."""
        if not (text := self.text):
            return None
        if (value := meant(text)) is None:
            draft.check(self.place, text, "what it means is not known here", f"set {field}")
        else:
            draft.put(field, value)
        return value

    def shown(self) -> str:
        """All it says on one line, for a note: it counts as read with everything in it."""
        return " ".join(f"{one}={value}".lstrip("=") for one, value in self._all(self.place))

    def _all(self, top: str) -> Iterator[tuple[str, str]]:
        self._read = True
        name = self.place.removeprefix(top).lstrip(".")
        if self._empty or not self._inside:
            yield name, hidden(self.place, self._text) or self._empty
        for one in self._inside.values():
            yield from one._all(top)

    def unread(self) -> Iterator[tuple[str, str]]:
        """Place and value of all that nobody has asked for; a list with nothing in it says nothing."""
        if not self._inside and not self._read and self._there and not self._listed:
            yield self.place, self._text or self._empty
        for one in self._inside.values():
            yield from one.unread()


def _said(value: object) -> str:
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def bounded(value: Any, what: str) -> Any:
    """The same, where it is no deeper and no larger than any machine's. Raises SpecError."""
    count, todo = 0, [(value, 0)]
    while todo:
        node, deep = todo.pop()
        count += 1
        if deep > _DEEPEST or count > _MOST:
            raise _too_large(what)
        if isinstance(node, dict | list):
            todo += [(one, deep + 1) for one in (node.values() if isinstance(node, dict) else node)]
    return value


def _too_large(what: str) -> SpecError:
    why = f"it has more than {_MOST} values, or more than {_DEEPEST} within each other"
    return SpecError(f"{what} is too large", why=why, fix="keep the machine alone in it")


def of_json(text: str, what: str) -> Node:
    """Raises SpecError for what is no JSON, is too large, or has a key twice."""
    try:
        return Node(bounded(json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, what)), what))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what} is no JSON", why=str(error)[:200], fix="write it again") from error


def _once(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SpecError(f"{what} has a key twice", why=", ".join(sorted(key for key, _ in pairs))[:200], fix="keep one")
    return found


def of_yaml(text: str, what: str) -> list[Node]:
    """Every document in a text. Raises SpecError for what is no YAML, is too large, or has a key twice."""
    import yaml

    if len(text) > _LONGEST_YAML:
        raise SpecError(f"{what} is too large", why=f"more than {_LONGEST_YAML >> 10} KiB of YAML are no machine's")
    left, loader = iter(range(_MOST)), getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # in Python each word costs its depth

    def plain(node: yaml.Node, deep: int) -> Any:
        """What an anchor stands for counts wherever it is taken up, so that nothing grows without end."""
        if deep > _DEEPEST or next(left, None) is None:
            raise _too_large(what)
        if isinstance(node, yaml.SequenceNode):
            return [plain(one, deep + 1) for one in node.value]
        if not isinstance(node, yaml.MappingNode):
            bare = not getattr(node, "style", None) and node.value in ("", "~", "null")
            return None if bare else str(node.value)
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise SpecError(f"{what} has a key that is no text", fix="write it again")
        return _once([(str(key.value), plain(one, deep + 1)) for key, one in node.value], what)

    try:
        found = [plain(one, 0) for one in yaml.compose_all(text, loader) if one is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{what} is no YAML", why=" ".join(str(error).split())[:200], fix="write it again") from error
    return [Node(one) for one in found if one not in (None, "")]
