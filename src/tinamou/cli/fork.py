"""The verb ``fork``: running copies of a running machine, or of a checkpoint."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.state import machines


def command(
    name: str,
    /,
    *,
    count: Annotated[int, Parameter(name=["--count", "-n"])] = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start running copies of a running machine, or of a checkpoint, each with its own identity.

    Parameters
    ----------
    name
        The machine, which goes on, or the checkpoint.
    count
        How many.
    """
    from tinamou.cli.loop import run_until_done
    from tinamou.machine.checkpoints import find
    from tinamou.machine.forking import checkpoint_by_name, leave_running

    known = {record.name: record for record in machines.machines()}
    record = known.get(name)
    checkpoint = run_until_done(checkpoint_by_name(record)) if record is not None and record.running else find(name)
    if checkpoint.kind == "portable":
        output.say(
            f"{checkpoint.name} is portable, as {checkpoint.why}: each fork loads a memory of its own, which is slower"
        )
    names = run_until_done(leave_running(checkpoint, count))
    if json:
        output.print_json({"checkpoint": checkpoint.name, "forks": names})
    else:
        print(*names, sep="\n")
