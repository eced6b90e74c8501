"""The verb ``ls``: every machine and what it is doing."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine.life import state_of
from tinamou.machine.reconcile import reconcile
from tinamou.state import machines


def command(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List machines."""
    for line in reconcile():
        output.warn(line)
    rows = [
        {
            "name": record.name,
            "state": run_until_done(state_of(record)),
            "image": record.image,
            "arch": record.arch,
            "accel": record.accel,
            "pid": record.pid or "",
            "age": _age(time.time() - record.created),
        }
        for record in machines.machines()
    ]
    if json:
        output.print_json([{**row, "pid": row["pid"] or None} for row in rows])
    else:
        output.table(rows, ("name", "state", "image", "arch", "accel", "pid", "age"))


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
