"""The verb ``kill``: cut a machine's power."""

from __future__ import annotations

from tinamou.machine import life
from tinamou.state import machines


def command(name: str, /) -> None:
    """Cut the power of a machine; of a suspended one, give up the saved state.

    Parameters
    ----------
    name
        The machine.
    """
    record = machines.find(name)
    life.kill(record if life.at_rest(record) == "suspended" else life.running(name))
