"""Options that describe a machine, shared by run and plan, and their way into a spec."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from tinamou.errors import Problem, SpecError
from tinamou.spec import MachineSpec, load_spec

__all__ = ["MachineOptions", "spec_from"]


@Parameter(name="*")
@dataclass(frozen=True)
class MachineOptions:
    """What can be said about a machine on the command line; --set reaches everything else."""

    name: str | None = None
    "Name of the machine, and hostname of its guest."
    arch: str | None = None
    "Guest architecture: x86_64, aarch64, riscv64."
    cpus: int | None = None
    "Number of virtual CPUs."
    memory: str | None = None
    "Guest memory, for example 2G."
    pin: str | None = None
    "Host CPUs for the virtual ones: off, auto, or a list such as 8-11."
    hugepages: str | None = None
    "Pages the memory lies on: off, auto, 2M, 1G."
    accel: str | None = None
    "auto, kvm, hvf, whpx, tcg."
    firmware: str | None = None
    "auto, bios, uefi, direct."
    kernel: str | None = None
    "Kernel for direct boot."
    initrd: str | None = None
    "Initial RAM disk for direct boot."
    cmdline: str | None = None
    "Kernel arguments, added to the necessary ones."
    disk: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A disk: a file, or size=10G,format=qcow2,…; may be repeated."
    net: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A network interface: user, none, or type=user,model=e1000,forward=8080:80; may be repeated."
    display: str | None = None
    "none, vnc, spice."
    user_data: str | None = None
    "File with cloud-init user-data, merged with tinamou's own."
    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = ()
    "Any field of the spec: --set cpu.model=host; values are TOML, plain text where they are not."


_FIELDS = (
    "name",
    "arch",
    "cpus",
    "memory",
    "pin",
    "hugepages",
    "accel",
    "firmware",
    "kernel",
    "initrd",
    "cmdline",
    "display",
)


def spec_from(image: str, options: MachineOptions | None) -> MachineSpec:
    """A spec from an image's name, or from a TOML file, with the options laid over it. Raises SpecError."""
    options = options or MachineOptions()
    data: dict[str, Any] = _read(image) if image.endswith(".toml") else {"image": image} if image else {}
    data |= {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    if options.disk:
        data["disk"] = [*_listed(data.get("disk", [])), *(_table(text) for text in options.disk)]
    if options.net:
        data["net"] = [] if options.net == ("none",) else [_table(text) for text in options.net]
    if options.user_data:
        data.setdefault("seed", {})["user_data"] = _text(options.user_data)
    problems = [problem for assignment in options.set if (problem := _assign(data, assignment))]
    if problems:
        raise SpecError("--set is not understood", problems=problems)
    return load_spec(data, source=image if image.endswith(".toml") else "the machine's description")


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return tomllib.load(file)
    except OSError as error:
        raise SpecError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not TOML", why=str(error), fix="see docs/reference/spec.md") from error


def _text(path: str) -> str:
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise SpecError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error


def _table(text: str) -> object:
    """``"type=user,model=e1000"`` as a table, a bare word as it is; a repeated key becomes a list."""
    if "=" not in text or os.path.exists(text):  # noqa: PTH110
        return text
    table: dict[str, Any] = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        parsed = _value(value)
        table[key] = [*_listed(table[key]), parsed] if key in table else parsed
    return table


def _value(text: str) -> object:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(data: dict[str, Any], assignment: str) -> Problem | None:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        return Problem("--set", assignment, "not of the form field=value", "write for example --set cpu.model=host")
    *tables, last = path.split(".")
    node = data
    for name in tables:
        inner = node.setdefault(name, {})
        if not isinstance(inner, dict):
            return Problem(path, text, f"{name} is already given as {inner!r}", "give it as a table in the file")
        node = inner
    node[last] = _value(text)
    return None
