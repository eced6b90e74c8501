"""Facts as plain JSON data and back: what the cache keeps and the recorded facts of the tests are.

Sets of names are one string, sorted and separated by blanks: it parses several times faster than a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tinamou.facts.accel import AccelFacts, Trial
from tinamou.facts.qemu import MachineType, QemuFacts
from tinamou.late import fields, is_dataclass

__all__ = ["Plain", "accel_from", "qemu_from", "to_plain"]

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""What JSON can say."""


def to_plain(value: object) -> Plain:
    """A frozen dataclass of facts (or a part of one) as JSON data."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"not a fact: {value!r}")


def _names(plain: Plain) -> frozenset[str]:
    return frozenset(_text(plain).split())


def _text(plain: Plain) -> str:
    if not isinstance(plain, str):
        raise ValueError(f"a text was expected, not {plain!r}")
    return plain


def _list(plain: Plain) -> list[Plain]:
    if not isinstance(plain, list):
        raise ValueError(f"a list was expected, not {plain!r}")
    return plain


def _object(plain: Plain) -> dict[str, Plain]:
    if not isinstance(plain, dict):
        raise ValueError(f"an object was expected, not {plain!r}")
    return plain


def _texts(plain: Plain) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(plain))


def _name_map(plain: Plain) -> dict[str, frozenset[str]]:
    return {key: _names(value) for key, value in _object(plain).items()}


def _machine(plain: Plain) -> MachineType:
    return MachineType(**cast("dict[str, str]", _object(plain)))  # type: ignore[arg-type]


def qemu_from(plain: Plain) -> QemuFacts:
    """The reverse of ``to_plain``. Raises KeyError, TypeError or ValueError for anything else."""
    data = _object(plain)
    major, minor, micro = (int(cast("int", part)) for part in _list(data["version"]))
    return QemuFacts(
        binary=_text(data["binary"]),
        version=(major, minor, micro),
        arch=_text(data["arch"]),
        machines=tuple(_machine(item) for item in _list(data["machines"])),
        cpu_models=_names(data["cpu_models"]),
        types=_names(data["types"]),
        commands=_names(data["commands"]),
        accels=_texts(data["accels"]),
        options=_names(data["options"]),
        properties=_name_map(data["properties"]),
        netdevs=_names(data["netdevs"]),
        data_dirs=_texts(data["data_dirs"]),
        backends=_name_map(data["backends"]),
        package=_text(data["package"]),
        loads=_texts(data.get("loads", [])),
        notes=_texts(data["notes"]),
    )


def _trial(plain: Plain) -> Trial:
    data = _object(plain)
    return Trial(
        accel=_text(data["accel"]),
        works=bool(data["works"]),
        milliseconds=float(cast("float", data["milliseconds"])),
        what=_text(data["what"]),
        why=_text(data["why"]),
        fix=_text(data["fix"]),
        needs=_texts(data["needs"]),
    )


def accel_from(plain: Plain) -> AccelFacts:
    """The reverse of ``to_plain``. Raises KeyError, TypeError or ValueError for anything else."""
    data = _object(plain)
    return AccelFacts(arch=_text(data["arch"]), trials=tuple(_trial(item) for item in _list(data["trials"])))
