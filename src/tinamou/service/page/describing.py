"""The form of a machine's description, made of the schema of machine files; and what was written in it, as plain data."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from typing import Any

from tinamou.errors import Problem, SpecError
from tinamou.late import dataclass
from tinamou.spec import SHORT, spec_schema

__all__ = ["Field", "Part", "parts", "written"]

_FIRST = ("name", "image", "arch", "accel")
_KINDS = {"integer": "number", "number": "number", "string": "text"}


@dataclass(frozen=True)
class Field:
    """One field: its name in a machine file (``cpu.count``), what it means, ``kind`` of input, the choices it has."""

    name: str
    about: str
    kind: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True)
class Part:
    """Fields that belong together; those of a machine as a whole have no name."""

    name: str
    about: str
    fields: tuple[Field, ...]


@functools.cache
def parts() -> tuple[Part, ...]:
    """The whole form."""
    found: dict[str, Part] = {}
    first = []
    for name, schema in spec_schema()["properties"].items():
        if name in SHORT:
            continue
        table = next((one for one in (schema, *schema.get("anyOf", ())) if "properties" in one), None)
        about = schema.get("description", "")
        if table is not None:
            inner = [_field(f"{name}.{key}", one) for key, one in table["properties"].items()]
            found[name] = Part(name, about, tuple(inner))
        else:
            first.append(_field(name, schema))
    ordered = sorted(first, key=lambda one: _FIRST.index(one.name) if one.name in _FIRST else len(_FIRST))
    return (Part("", "", tuple(ordered)), *found.values())


def _field(name: str, schema: Mapping[str, Any]) -> Field:
    about = schema.get("description", "")
    while len(schema.get("anyOf", ())) == 1:  # it may also be left out
        schema = schema["anyOf"][0]
    if "enum" in schema:
        return Field(name, about, "choice", tuple(str(one) for one in schema["enum"] if isinstance(one, str) and one))
    if schema.get("type") == "boolean":
        return Field(name, about, "choice", ("true", "false"))
    if "type" in schema and schema["type"] in _KINDS:
        low, high = schema.get("minimum"), schema.get("maximum")
        return Field(name, about, _KINDS[schema["type"]], minimum=low, maximum=high)
    lists = any(one.get("type") == "array" for one in schema.get("anyOf", ()))
    return Field(name, about, "lines" if lists else "text")


def written(form: Mapping[str, Any]) -> dict[str, Any]:
    """What was written, as `tinamou.spec.load_spec` reads it; fields left empty are left out. Raises SpecError."""
    data: dict[str, Any] = {}
    problems = []
    for field in (field for part in parts() for field in part.fields):
        text = form.get(field.name, "")
        if not isinstance(text, str) or not text.strip():
            continue
        table, _, key = field.name.rpartition(".")
        try:
            (data.setdefault(table, {}) if table else data)[key] = _value(field, text.strip())
        except ValueError as error:
            problems.append(Problem(field.name, text[:200], str(error), 'a line each, such as { size = "10G" }'))
    if problems:
        raise SpecError("the form is not understood", problems=problems)
    return data


def _value(field: Field, text: str) -> Any:
    """Raises ValueError."""
    if field.kind == "choice":
        return {"true": True, "false": False}.get(text, text)
    if field.kind == "number":
        return float(text) if "." in text else int(text)
    return [_line(line.strip()) for line in text.splitlines() if line.strip()] if field.kind == "lines" else text


def _line(text: str) -> Any:
    """One thing of a list: a TOML value, or a bare word."""
    if not text.startswith(("{", '"', "'", "[")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError:
        raise ValueError("nested too deep") from None
