"""The verb ``resume``: let a frozen machine run on, or take a suspended one up."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.machine import life
from tinamou.state import machines
from tinamou.state.record import change


def command(name: str, /) -> None:
    """Let a frozen machine run on, or take a suspended one up where it was.

    Parameters
    ----------
    name
        The machine.
    """
    record = machines.find(name)
    if life.at_rest(record) != "suspended":
        run_until_done(life.command(life.running(name), "cont"))
        return
    from tinamou.machine.suspending import wake_up

    awake = run_until_done(wake_up(record))
    change(awake, owner_pid=0, owner_started=0)
