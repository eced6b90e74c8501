"""QEMU's answers as facts: pure reading of its QMP replies and help texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast

from tinamou.facts.qemu import MachineType, QemuFacts
from tinamou.probe.interview import Interview
from tinamou.probe.questions import ACCELS, TYPES

__all__ = ["option_names", "qemu_facts"]

_Entry = Mapping[str, object]


def qemu_facts(
    binary: str, told: Interview, help_text: str, data_dirs: tuple[str, ...], loads: tuple[str, ...] = ()
) -> QemuFacts:
    """The facts of one interview."""
    schema = _Schema(_entries(told.answers.get("query-qmp-schema")))
    properties = {name: _named(found) for name in TYPES if (found := told.answers.get(f"properties:{name}")) is not None}
    version = cast("_Entry", told.answers["query-version"])
    number = cast("Mapping[str, int]", version["qemu"])
    machines = tuple(sorted(map(_machine, _entries(told.answers.get("query-machines"))), key=lambda m: m.name))
    return QemuFacts(
        binary=binary,
        version=(number["major"], number["minor"], number["micro"]),
        arch=str(cast("_Entry", told.answers["query-target"])["arch"]),
        machines=machines,
        cpu_models=_cpu_models(told),
        types=_types(told, properties, machines),
        commands=_named(told.answers.get("query-commands")),
        accels=tuple(name for name in ACCELS if f"{name}-accel" in properties),
        options=option_names(help_text) | _parameters(_entries(told.answers.get("query-command-line-options"))),
        properties=properties,
        netdevs=schema.enum("netdev_add", "type"),
        data_dirs=data_dirs,
        backends={
            "aio": schema.enum_with("threads", "native"),
            "blockdev": schema.enum("blockdev-add", "driver"),
            "chardev": schema.enum("chardev-add", "backend", "type"),
            "display": schema.enum("query-display-options", "type"),
            "migration": schema.enum("migrate-set-capabilities", "capabilities", "capability"),
            "transport": schema.enum("migrate", "channels", "addr", "transport"),
        },
        package=str(version.get("package", "")),
        loads=loads,
        notes=tuple(_note(name, stderr) for name, stderr in told.deadly.items()),
    )


class _Schema:
    """QMP's description of itself; type names in it are numbers without meaning (docs/devel/qapi-code-gen)."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._by_name = {str(entry["name"]): entry for entry in entries}

    def enum_with(self, *values: str) -> frozenset[str]:
        """All values of the one enum that has these, where the way to it leads through variants."""
        every = (entry.get("values", []) for entry in self._by_name.values() if entry.get("meta-type") == "enum")
        return next(
            (_names(cast("list[str]", found)) for found in every if set(values) <= set(cast("list[str]", found))), _names([])
        )

    def enum(self, command: str, *path: str) -> frozenset[str]:
        """The values of the enum found by following members from a command's argument (a query's result)."""
        entry = self._by_name.get(command, {})
        entry = self._by_name.get(str(entry.get("ret-type" if command.startswith("query-") else "arg-type")), {})
        for step in path:
            members = {str(member["name"]): str(member["type"]) for member in _entries(entry.get("members"))}
            entry = self._by_name.get(members.get(step, ""), {})
            if entry.get("meta-type") == "array":
                entry = self._by_name.get(str(entry["element-type"]), {})
        return _names(cast("list[str]", entry.get("values", [])))


def _entries(found: object) -> list[_Entry]:
    return cast("list[_Entry]", found) if isinstance(found, list) else []


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name and not re.search(r"\s", name))


def _named(found: object) -> frozenset[str]:
    return _names(str(entry["name"]) for entry in _entries(found))


def _machine(entry: _Entry) -> MachineType:
    return MachineType(
        name=str(entry["name"]),
        alias=str(entry.get("alias", "")),
        max_cpus=cast("int", entry["cpu-max"]),
        default=bool(entry.get("is-default", False)),
    )


def _cpu_models(told: Interview) -> frozenset[str]:
    """CPU types are called MODEL-ARCH-cpu; where types cannot be listed, the definitions name the models."""
    types = _named(told.answers.get("types"))
    models = (name.rsplit("-", 2)[0] for name in types if name.endswith("-cpu") and name.count("-") > 1)
    return frozenset(models) or _named(told.answers.get("query-cpu-definitions"))


def _types(told: Interview, properties: Iterable[str], machines: Iterable[MachineType]) -> frozenset[str]:
    """Where types cannot be listed, those whose properties were told; the machine types among them are abstract ones."""
    known = {name for name in properties if not name.endswith("-machine")}
    return _named(told.answers.get("types")) or frozenset(known | {f"{machine.name}-machine" for machine in machines})


def _parameters(groups: Iterable[_Entry]) -> frozenset[str]:
    """Options with their parameters, without those whose help calls them deprecated: they have done their time."""
    found: set[str] = set()
    for group in groups:
        option = str(group["option"])
        kept = [one for one in _entries(group.get("parameters")) if "deprecated" not in str(one.get("help"))]
        found |= {option, *(f"{option}.{name}" for name in _named(kept))}
    return _names(found)


def option_names(help_text: str) -> frozenset[str]:
    """The options ``-help`` lists, without dash: lines such as ``-fda/-fdb file`` and ``-h or -help`` name two."""
    heads = (line.split("  ")[0] for line in help_text.splitlines() if line.startswith("-"))
    return frozenset(name for head in heads for name in re.findall(r"(?:^|/| or )-([a-zA-Z0-9][\w-]*)", head))


def _note(name: str, stderr: str) -> str:
    reason = stderr.splitlines()[-1] if stderr else "it said nothing"
    return f"QEMU dies when asked for {name} ({reason}); what only that would tell is unknown"
