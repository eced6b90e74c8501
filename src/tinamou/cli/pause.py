"""The verb ``pause``: freeze a machine's virtual CPUs."""

from __future__ import annotations

from tinamou.machine import life
from tinamou.machine.blocking import wait_for


def command(name: str, /) -> None:
    """Freeze a machine.

    Parameters
    ----------
    name
        The machine.
    """
    wait_for(life.command(life.running(name), "stop"))
