"""The verb ``start``: start a stopped machine again."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.cli.running import say_what_waits
from tinamou.operations import machines


def command(name: str, /, *, timeout: float = 300.0, wait: Annotated[bool, Parameter(negative="--no-wait")] = True) -> None:
    """Start a stopped machine in the background.

    Parameters
    ----------
    name
        The machine.
    timeout
        Seconds the guest may take to answer; one that takes longer is left running.
    wait
        Wait until the guest answers.
    """
    launched = run_until_done(machines.start(name, wait=wait, timeout=timeout))
    output.notes(launched.notes)
    say_what_waits(launched, wait=wait)
    print(name)
