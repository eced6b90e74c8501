"""The verb ``ls``: every machine and what it is doing."""

from __future__ import annotations

import time
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.machine.reconcile import reconcile
from tinamou.monitor.states import states_of
from tinamou.state import machines


def command(
    *,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
    json: Switch = False,
) -> None:
    """List machines.

    Parameters
    ----------
    quiet
        Only their names.
    """
    for line in reconcile():
        output.warn(line)
    records = machines.machines()
    if quiet:
        print(*(record.name for record in records), sep="\n", end="\n" if records else "")
        return
    states = run_until_done(states_of(records))
    rows = [
        {
            "name": record.name,
            "state": seen.state,
            "why": seen.why,
            "image": record.image,
            "arch": record.arch,
            "accel": record.accel,
            "pid": record.pid or "",
            "age": _age(time.time() - record.created),
        }
        for record, seen in zip(records, states, strict=True)
    ]
    if json:
        output.print_json([{**row, "pid": row["pid"] or None, "why": row["why"] or None} for row in rows])
        return
    output.table(rows, ("name", "state", "image", "arch", "accel", "pid", "age"))
    for row in rows:
        if row["why"]:
            output.warn(f"{row['name']}: {row['why']}")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
