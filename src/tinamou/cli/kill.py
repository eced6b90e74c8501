"""The verb ``kill``: cut the power of machines."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str, /, *names: str) -> None:
    """Cut the power of machines; of suspended ones, give up the saved state.

    Parameters
    ----------
    names
        More of them.
    """
    for one in (name, *names):
        run_until_done(machines.kill(one))
