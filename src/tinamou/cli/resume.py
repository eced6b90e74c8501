"""The verb ``resume``: let a frozen machine run on."""

from __future__ import annotations

from tinamou.machine import life
from tinamou.machine.blocking import wait_for


def command(name: str, /) -> None:
    """Let a frozen machine run on.

    Parameters
    ----------
    name
        The machine.
    """
    wait_for(life.command(life.running(name), "cont"))
