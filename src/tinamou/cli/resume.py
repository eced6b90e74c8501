"""The verb ``resume``: let a frozen machine run on, or take a suspended one up."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str, /) -> None:
    """Let a frozen machine run on, or take a suspended one up where it was.

    Parameters
    ----------
    name
        The machine.
    """
    run_until_done(machines.resume(name))
