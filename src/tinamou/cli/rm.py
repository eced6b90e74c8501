"""The verb ``rm``: remove a machine and its disks."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from tinamou.machine import life
from tinamou.state import machines


def command(*names: str, force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False) -> int:
    """Remove machines and their disks.

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
    for record in [machines.find(name) for name in names]:
        life.remove(record, force=force)
    return 0
