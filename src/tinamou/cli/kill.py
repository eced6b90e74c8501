"""The verb ``kill``: cut a machine's power."""

from __future__ import annotations

from tinamou.machine import life


def command(name: str, /) -> None:
    """Cut the power of a machine.

    Parameters
    ----------
    name
        The machine.
    """
    life.kill(life.running(name))
