"""The verb ``checkpoint``: save the whole state of a running machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.machine import life


def command(name: str, checkpoint: str = "", /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Save the whole state of a running machine, which goes on: memory, devices, disks.

    Parameters
    ----------
    name
        The machine.
    checkpoint
        The checkpoint's name; one of its own when left out.
    """
    from tinamou.machine.blocking import wait_for
    from tinamou.machine.forking import checkpoint_by_name

    taken = wait_for(checkpoint_by_name(life.running(name), checkpoint))
    if json:
        output.print_json({**dataclasses.asdict(taken), "plan": None, "record": None})
        return
    memory = f", {taken.ram.size >> 20} MiB of memory" if taken.ram else ""
    output.say(f"{taken.kind} checkpoint{memory}; {name} stood still for {taken.pause * 1000:.0f} ms")
    print(taken.name)
