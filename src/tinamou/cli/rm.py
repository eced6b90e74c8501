"""The verb ``rm``: remove machines and their disks."""

from __future__ import annotations

import sys

from tinamou.cli.grammar import Force
from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(*names: str, force: Force = False) -> int:
    """Remove machines, their disks and their schedules.

    Parameters
    ----------
    names
        The machines.
    force
        Cut the power of those that still run.
    """
    if not names:
        print("tinamou: remove which machines? tinamou ls shows them", file=sys.stderr)
        return 2
    run_until_done(machines.remove(names, force=force))
    return 0
