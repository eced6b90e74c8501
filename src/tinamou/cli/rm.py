"""The verb ``rm``: remove a machine and its disks."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tinamou.machine import life
from tinamou.state import machines


def command(*names: str, force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False) -> None:
    """Remove machines and their disks.

    Parameters
    ----------
    names
        The machines.
    force
        Cut the power of those that still run.
    """
    for name in names:
        life.remove(machines.find(name), force=force)
