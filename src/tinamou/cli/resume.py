"""The verb ``resume``: let a frozen machine run on, or take a suspended one up."""

from __future__ import annotations

import dataclasses

from tinamou.machine import life
from tinamou.machine.blocking import wait_for
from tinamou.state import machines
from tinamou.state.record import write


def command(name: str, /) -> None:
    """Let a frozen machine run on, or take a suspended one up where it was.

    Parameters
    ----------
    name
        The machine.
    """
    record = machines.find(name)
    if life.at_rest(record) != "suspended":
        wait_for(life.command(life.running(name), "cont"))
        return
    from tinamou.machine.suspending import wake_up

    awake = wait_for(wake_up(record))
    write(dataclasses.replace(awake, owner_pid=0, owner_started=0))
