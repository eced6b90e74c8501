"""Which machine a template's name stands for: a table, by default ``base`` alone, which is the tiny guest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinamou.errors import Problem, SpecError
from tinamou.late import dataclass, field
from tinamou.spec import MachineSpec, load_spec
from tinamou.system.toml import toml_file

__all__ = ["BASE", "Template", "load"]

BASE = "base"
_SOURCES = ("image", "pool", "checkpoint")


@dataclass(frozen=True)
class Template:
    """Where a sandbox's machine comes from: a fork of one booted from ``image``, as ``machine`` describes it; a ``pool``; or
    forks of a ``checkpoint``. ``user`` runs commands that name none; root when empty."""

    name: str
    image: str = ""
    pool: str = ""
    checkpoint: str = ""
    user: str = ""
    machine: dict[str, Any] = field(default_factory=dict)

    def spec(self, *, network: bool = True) -> MachineSpec:
        """The machine that is booted for its forks; without a network unless it names one. Raises SpecError."""
        data: dict[str, Any] = {"net": [], **self.machine, "image": self.image}
        return load_spec(data if network else {**data, "net": []}, source=f"template {self.name}")


def load(path: Path | None) -> dict[str, Template]:
    """The templates of a TOML file, and ``base`` where it does not say what that is. Raises SpecError.

    A table ``[NAME]`` has ``image``, ``pool`` or ``checkpoint``, and may have ``user``; ``[NAME.machine]`` are fields of a
    machine file.
    """
    found = {BASE: Template(BASE, image="tiny")}
    if path is None:
        return found
    data = toml_file(str(path), "is no file of templates", see="docs/guides/agents.md")
    problems = [problem for name, table in data.items() for problem in _problems(name, table)]
    if problems:
        raise SpecError(f"{path} has {len(problems)} problem(s)", problems=problems, fix="see docs/guides/agents.md")
    found |= {name: Template(name, **table) for name, table in data.items()}
    for one in found.values():
        if one.image:
            one.spec()
    return found


def _problems(name: str, table: object) -> list[Problem]:
    if not isinstance(table, Mapping):
        return [Problem(name, table, "not a table", f"write [{name}] above what it is")]
    known = (*_SOURCES, "user", "machine")
    problems = [
        Problem(f"{name}.{key}", None, "no such field", f"one of {', '.join(known)}") for key in table if key not in known
    ]
    wrong = [key for key in ("user", *_SOURCES) if not isinstance(table.get(key, ""), str)]
    problems += [Problem(f"{name}.{key}", table[key], "not a text") for key in wrong]
    sources = [key for key in _SOURCES if table.get(key)]
    if len(sources) != 1:
        problems.append(
            Problem(name, None, f"it comes from {len(sources)} sources", "name an image, a pool or a checkpoint")
        )
    if not isinstance(table.get("machine", {}), Mapping):
        problems.append(Problem(f"{name}.machine", table["machine"], "not a table"))
    elif table.get("machine") and sources != ["image"]:
        problems.append(
            Problem(f"{name}.machine", None, "a pool's or checkpoint's machines are what they are", "leave it out")
        )
    return problems
