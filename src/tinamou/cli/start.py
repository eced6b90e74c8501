"""The verb ``start``: start a stopped machine again."""

from __future__ import annotations

from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter
from tinamou.cli.loop import run_until_done
from tinamou.cli.running import say_what_waits
from tinamou.errors import Problem, SpecError
from tinamou.machine.connected import READY_SECONDS
from tinamou.operations import machines


def command(
    name: str, /, *, timeout: float = READY_SECONDS, wait: Annotated[bool, Parameter(negative="--no-wait")] = True
) -> None:
    """Start a stopped machine in the background.

    Parameters
    ----------
    timeout
        Seconds the guest may take to answer; one that takes longer is left running.
    wait
        Wait until the guest answers.
    """
    if not wait and timeout != READY_SECONDS:
        problem = Problem("--timeout", timeout, "the guest is not waited for", "leave it, or --no-wait, out")
        raise SpecError("these options do not go together", problems=[problem])
    launched = run_until_done(machines.start(name, wait=wait, timeout=timeout))
    output.notes(launched.notes)
    say_what_waits(launched, wait=wait)
    print(name)
