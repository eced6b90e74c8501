"""The verb ``set``: change fields of a machine's description, in effect at once where that can be."""

from __future__ import annotations

from typing import Annotated

from tinamou.cli import output
from tinamou.cli.altered import show
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(
    name: str,
    /,
    *fields: str,
    dry_run: Annotated[bool, Parameter(name="--dry-run", negative="")] = False,
    json: Switch = False,
) -> int:
    """Change what a machine is: tinamou set NAME memory=8G cpus=4 net[0].forward+=tcp:8080:80.

    All of it is checked before any of it is taken. What a running QEMU takes is in effect at once, the rest from the next
    start on; each is said.

    Parameters
    ----------
    fields
        Fields of a machine file: field=value, list+=value, list-=value; field= takes it out, net[1]= an element.
    dry_run
        Only show what would change.
    json
        What was changed as JSON.
    """
    if not fields:
        output.warn(f"set which fields? tinamou show {name} has them, docs/reference/spec.md says what they mean")
        return 2
    show(run_until_done(keeping.set_fields(name, fields, dry_run=dry_run)), json=json, dry_run=dry_run)
    return 0
