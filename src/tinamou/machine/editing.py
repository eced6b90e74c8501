"""A kept machine's description as the text of a machine file, and taken back from one."""

from __future__ import annotations

from typing import Any

from tinamou.convert.writing import text as written
from tinamou.errors import SpecError, StateError
from tinamou.machine.changing import Altered, make_it
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines

__all__ = ["MOST", "as_text", "take_text"]

MOST = 1 << 20
"""Bytes that a machine file may have."""

_ABOUT = """\
What {name} is from its next start on; what a running machine takes is in effect at once.
Every field: docs/reference/spec.md. An empty file changes nothing.
"""


def as_text(name: str) -> str:
    """The machine file of a machine, with what is to come at its next start. Raises StateError."""
    return written(dict(machines.find(name).next_spec), _ABOUT.format(name=name))


async def take_text(name: str, text: str, *, before: str = "", dry_run: bool = False, source: str = "") -> Altered:
    """Make a machine what a machine file says, all of it or nothing.

    A text that says nothing changes nothing. ``before`` is the text that was edited: where the machine was changed since,
    nothing is taken. Raises SpecError with every problem, PlanError, PrepareError, StateError.
    """
    data = _data(text, source or "the text")

    def wanted(now: MachineSpec) -> MachineSpec:
        if before and before != written(dump_spec(now), _ABOUT.format(name=name)):
            why = "another command changed it meanwhile, which this would undo"
            raise StateError(f"{name} is not what was edited any more", why=why, fix=f"tinamou edit {name} again")
        return load_spec({"name": name, **data}, source=source or "the text") if data else now

    return await make_it(name, wanted, what="edit", dry_run=dry_run)


def _data(text: str, source: str) -> dict[str, Any]:
    from tinamou.system.toml import toml_of

    if len(text) > MOST:
        raise SpecError(f"{source} is no machine file", why=f"it is larger than {MOST >> 20} MiB")
    try:
        return toml_of(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{source} is not TOML", why=str(error), fix="see docs/reference/spec.md") from error
