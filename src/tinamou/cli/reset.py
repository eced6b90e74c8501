"""The verb ``reset``: press the reset button."""

from __future__ import annotations

from tinamou.machine import life
from tinamou.machine.blocking import wait_for


def command(name: str, /) -> None:
    """Press the reset button of a machine.

    Parameters
    ----------
    name
        The machine.
    """
    wait_for(life.reset(life.running(name)))
