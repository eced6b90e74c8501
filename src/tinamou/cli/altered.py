"""How a change of a machine is shown: its fields, when each is in effect, and what differs in the plan."""

from __future__ import annotations

from typing import Any

from tinamou import late
from tinamou.cli import output
from tinamou.machine.changing import Altered, Change

__all__ = ["show"]


def show(done: Altered, *, json: bool, dry_run: bool = False) -> None:
    """Print what was changed, or would be with ``dry_run``."""
    if json:
        output.print_json({**late.asdict(done), "dry_run": dry_run})
        return
    if not done.changes:
        print(f"{done.machine} is so already")
    for one in done.changes:
        print(f"{one.field}: {_shown(one.before)} -> {_shown(one.after)}, {_when(one, dry_run)}")
    if done.plan:
        print("\nin the plan of its next start")
    for line in done.plan:
        print(f"  {line.sign} {line.line}\n      {line.asked_by}: {line.reason}")


def _when(one: Change, dry_run: bool) -> str:
    if dry_run:
        return "not done"
    when = "now" if one.effect == "now" else "from the next start on"
    return f"{when} ({one.why})" if one.why else when


def _shown(value: Any) -> str:
    if value in (None, "", []):
        return "nothing"
    if isinstance(value, dict):
        return ",".join(f"{key}={_shown(inner)}" for key, inner in value.items()) or "as by default"
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
