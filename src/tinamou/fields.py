"""Plain data (TOML, JSON, keyword arguments) into frozen dataclasses: every problem is collected, none hides another.

A dataclass describes itself: types, defaults, and per field the text and limits given by `option`. The same
description yields the JSON Schema. Why this is not pydantic: docs/decisions/0002-own-field-loader.md.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from tinamou import late
from tinamou.errors import Problem, SpecError
from tinamou.units import CpuSet, Mac, PciAddress, Size

__all__ = ["PARSED", "json_schema", "load", "option", "plain", "size_of"]

T = TypeVar("T")
_Read: TypeAlias = Callable[[Any, str], tuple[Any, list[Problem]]]
"""What makes a value of a kind from plain data at a path."""
PARSED = (Size, CpuSet, Mac, PciAddress)
"""Values with a notation of their own."""
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def option(
    default: Any,
    doc: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    pattern: str = "",
    hint: str = "",
) -> Any:
    """One field of a spec: its default, what it means, and its limits (``hint`` is the fix shown on a bad value)."""
    limits = {"doc": doc, "minimum": minimum, "maximum": maximum, "pattern": pattern, "hint": hint}
    if isinstance(default, type):
        return late.field(default_factory=default, metadata=limits)
    return late.field(default=default, metadata=limits)


def size_of(text: str, name: str) -> Size:
    """A size as machine files have it, for whoever takes one by itself. Raises SpecError that names it."""
    try:
        return Size.parse(text)
    except ValueError as error:
        problem = Problem(name, text, *str(error).split("; "))
        raise SpecError(f"{name} is no size", problems=[problem]) from None


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


@functools.cache
def _known(cls: Any) -> dict[str, tuple[late.Field[Any], _Read, bool]]:
    """Name → field of a class, what reads its kind, and whether it has limits."""
    hints = _hints(cls)
    limits = ("minimum", "maximum", "pattern")
    return {
        field.name: (field, _reader(hints[field.name]), any(field.metadata.get(one) not in (None, "") for one in limits))
        for field in late.fields(cls)
    }


def load(cls: type[T], data: object, path: str = "") -> tuple[T | None, list[Problem]]:
    """``data`` as an instance of dataclass ``cls``, or None with every problem found, each with its path.

    A class attribute ``shorthand`` names the field a bare value stands for: ``memory = "2G"`` is ``memory.size``.
    """
    if isinstance(data, cls):
        return data, []
    shorthand = getattr(cls, "shorthand", "")
    if data.__class__ is not dict and not isinstance(data, Mapping):
        if not shorthand:
            return None, [Problem(path or "spec", data, "expected a table of settings", "write it as key = value pairs")]
        data = {shorthand: data}
    known = _known(cast(Any, cls))
    problems = [_unknown(str(key), _join(path, str(key)), known) for key in data if key not in known]
    values: dict[str, Any] = {}
    for name, (field, read, limited) in known.items():
        if name in data:
            place = f"{path}.{name}" if path else name
            value, found = read(data[name], place)
            if found or limited:
                problems += found or _limits(field, value, place)
            values[name] = value
    if problems:
        return None, problems
    built = cls(**values)
    check = getattr(built, "problems", None)
    found = [late.replace(p, path=_join(path, p.path)) for p in check()] if check else []
    return (None, found) if found else (built, [])


def _near(word: str, words: Iterable[str]) -> list[str]:
    """The word that was probably meant, if any."""
    import difflib

    return difflib.get_close_matches(word, list(words), 1)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown(key: str, path: str, known: Mapping[str, object]) -> Problem:
    near = _near(key, known)
    fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return Problem(path, None, "unknown field", fix)


def _limits(field: late.Field[Any], value: Any, path: str) -> list[Problem]:
    said = field.metadata
    low, high, pattern, hint = said.get("minimum"), said.get("maximum"), said.get("pattern"), said.get("hint", "")
    if low is not None and isinstance(value, int) and value < low:
        return [Problem(path, _shown(value), f"must be at least {_like(value, low)}", hint)]
    if high is not None and isinstance(value, int) and value > high:
        return [Problem(path, _shown(value), f"must be at most {_like(value, high)}", hint)]
    if pattern and value and not re.fullmatch(pattern, value):
        return [Problem(path, value, "not a value it can have" if hint else f"does not have the form {pattern}", hint)]
    return []


def _like(value: int, limit: int) -> str:
    return str(Size(limit)) if isinstance(value, Size) else str(limit)


def _shown(value: object) -> object:
    return str(value) if isinstance(value, PARSED) else value


def _reader(kind: Any) -> _Read:
    if isinstance(kind, type):
        return _plain_reader(kind)
    origin = get_origin(kind)
    if origin is Literal:
        return partial(_convert_choice, get_args(kind))
    if origin is tuple:
        return partial(_convert_list, _reader(get_args(kind)[0]))
    if origin is dict:
        return _convert_table
    kinds = get_args(kind)
    return partial(_convert_union, [_reader(one) for one in kinds if one is not type(None)], type(None) in kinds)


def _plain_reader(kind: type) -> _Read:
    if kind in PARSED:
        return partial(_parse, kind)
    if kind not in _WORDS and late.is_dataclass(kind):
        return partial(load, kind)
    return _convert_text if kind is str else partial(_convert_plain, kind)


def _convert_text(value: object, path: str) -> tuple[Any, list[Problem]]:
    if not isinstance(value, str):
        return _wrong(_WORDS[str], value, path)
    if (not value.isascii() or "\0" in value) and (reason := _unwritable(value)):
        return None, [Problem(path, value, reason)]
    return value, []


def _convert_table(value: object, path: str) -> tuple[Any, list[Problem]]:
    return (dict(value), []) if isinstance(value, Mapping) else _wrong("a table", value, path)


def _convert_plain(kind: type, value: object, path: str) -> tuple[Any, list[Problem]]:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value), []
    matches = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    return (value, []) if matches else _wrong(_WORDS.get(kind, kind.__name__), value, path)


def _unwritable(text: str) -> str:
    """Why no file, command or guest can be given this text; empty where all can. Names of files may be of any bytes."""
    if "\0" in text:
        return "has a zero byte in it"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "has half a character in it (a lone surrogate)"
    return ""


def _wrong(expected: str, value: object, path: str) -> tuple[None, list[Problem]]:
    return None, [Problem(path, value, f"expected {expected}, found {type(value).__name__}")]


def _parse(kind: Any, value: object, path: str) -> tuple[Any, list[Problem]]:
    try:
        return kind.parse(str(value)), []
    except ValueError as error:
        return None, [Problem(path, value, str(error))]


def _convert_union(kinds: Sequence[_Read], optional: bool, value: object, path: str) -> tuple[Any, list[Problem]]:
    if value is None and optional:
        return None, []
    found: list[Problem] = []
    for read in kinds:
        converted, found = read(value, path)
        if not found:
            return converted, []
    return None, found


def _convert_choice(choices: Sequence[Any], value: object, path: str) -> tuple[Any, list[Problem]]:
    if isinstance(value, bool):
        value = "on" if value else "off"
    if value in choices:
        return value, []
    near = _near(str(value), [str(c) for c in choices])
    known = ", ".join(str(c) for c in choices if c != "")
    return None, [Problem(path, value, f"not one of {known}", f"did you mean {near[0]}?" if near else "")]


def _convert_list(read: _Read, value: object, path: str) -> tuple[Any, list[Problem]]:
    items = value if isinstance(value, list | tuple) else [value]
    converted, problems = [], []
    for index, item in enumerate(items):
        element, found = read(item, f"{path}[{index}]")
        converted.append(element)
        problems += found
    return (None, problems) if problems else (tuple(converted), [])


def plain(value: object) -> Any:
    """A spec as plain data that `load` reads back: sizes and addresses in their notation, defaults left out."""
    if isinstance(value, PARSED):
        return str(value)
    if late.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in late.fields(value))
        return {f.name: plain(v) for f, v in fields if v != _default(f)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _default(field: late.Field[Any]) -> object:
    return field.default if field.default_factory is late.MISSING else field.default_factory()


def json_schema(cls: type) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema_of(cls)}


def _schema_of(kind: Any) -> dict[str, Any]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of(k) for k in get_args(kind) if k is not type(None)]}
    if origin is Literal:
        return {"enum": [*get_args(kind), *([True, False] if "on" in get_args(kind) else [])]}
    if origin is tuple:
        item = _schema_of(get_args(kind)[0])
        return {"anyOf": [{"type": "array", "items": item}, item]}
    if origin is dict:
        return {"type": "object"}
    if kind is Size:
        return {
            "anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)?\s*[BbKkMmGgTtPp]?([Ii]?[Bb])?$"}, {"type": "integer"}]
        }
    if kind in PARSED:
        return {"type": "string"}
    if late.is_dataclass(kind):
        return _schema_of_class(kind)
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}.get(kind, "string")}


def _schema_of_class(cls: Any) -> dict[str, Any]:
    properties = {}
    for field in late.fields(cls):
        schema = _schema_of(_hints(cls)[field.name])
        schema["description"] = field.metadata.get("doc", "")
        for key in ("minimum", "maximum"):
            if field.metadata.get(key) is not None and schema.get("type") == "integer":
                schema[key] = field.metadata[key]
        properties[field.name] = schema
    table = {"type": "object", "properties": properties, "additionalProperties": False}
    shorthand = getattr(cls, "shorthand", "")
    return {"anyOf": [table, dict(properties[shorthand])]} if shorthand else table
