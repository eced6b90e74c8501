"""The verb ``fork``: running copies of a running machine, or of a checkpoint."""

from __future__ import annotations

from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done


def command(
    name: str,
    /,
    *,
    count: Annotated[int, Parameter(name=["--count", "-n"])] = 1,
    json: Switch = False,
) -> None:
    """Start running copies of a running machine, or of a checkpoint, each with its own identity.

    Parameters
    ----------
    name
        The machine, which goes on, or the checkpoint.
    count
        How many.
    """
    from tinamou.operations import states

    forked = run_until_done(states.fork(name, count, progress=output.progress))
    output.warn(*forked.notes)
    if json:
        output.print_json({"checkpoint": forked.checkpoint.name, "forks": forked.names, "notes": forked.notes})
    else:
        print(*forked.names, sep="\n")
