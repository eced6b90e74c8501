"""Every field of a machine's description, out of its schema; and how one of them is looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seen import Seen

from tinamou import fields
from tinamou.spec import SHORT, load_spec, spec_schema

Expected = Any
"""A value, or a function of what is seen for what differs from machine to machine."""


@dataclass(frozen=True)
class Look:
    """How a field's value shows: what a command in the guest prints, or what ``host`` finds in QEMU and on the host."""

    expect: Expected
    guest: str = ""
    host: Callable[[Seen], object] | None = None


def guest(command: str, expect: Expected) -> Look:
    """The guest's own view: the output of a command of its shell."""
    return Look(expect, guest=command)


def host(find: Callable[[Seen], object], expect: Expected) -> Look:
    """What QEMU answers, or what the host shows of it."""
    return Look(expect, host=find)


@dataclass(frozen=True)
class Group:
    """A machine that has many fields at once: its description, made in a folder of the test's, and a look for each field.

    ``waited`` says that its guest answers; ``lacking`` names fields this host cannot have, with the reason.
    """

    describe: Callable[[Path], dict[str, Any]]
    looks: Mapping[str, Look]
    waited: bool = True


def every_field() -> list[str]:
    """``cpu.count``, ``disk[].size``, …: the leaves of the schema, without the short names."""
    properties = {name: node for name, node in spec_schema()["properties"].items() if name not in SHORT}
    return list(_leaves(properties, ""))


def _leaves(properties: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, node in properties.items():
        shapes = [node, *node.get("anyOf", ())]
        items = next((one["items"] for one in shapes if "items" in one), None)
        inner = [items, *items.get("anyOf", ())] if items else shapes
        table = next((one["properties"] for one in inner if "properties" in one), None)
        here = f"{path}{name}"
        if table:
            yield from _leaves(table, f"{here}{'[]' if items else ''}.")
        else:
            yield here


def said_by(description: Mapping[str, Any]) -> set[str]:
    """The fields a description gives another value than the default."""
    return set(_said(load_spec(description), ""))


def _said(part: Any, path: str) -> Iterator[str]:
    for one in dataclasses.fields(part):
        value, here = getattr(part, one.name), f"{path}{one.name}"
        default = one.default if one.default is not dataclasses.MISSING else None
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for element in value:
                yield from _said(element, f"{here}[].")
        elif dataclasses.is_dataclass(value) and not isinstance(value, fields.PARSED):
            yield from _said(value, f"{here}.")
        elif value != default:
            yield here
