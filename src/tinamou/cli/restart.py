"""The verb ``restart``: shut a machine down and start it again."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.cli.running import say_what_waits
from tinamou.machine.life import GRACE_SECONDS
from tinamou.operations import machines


def command(name: str, /, *, grace: float = GRACE_SECONDS, timeout: float = 300.0) -> None:
    """Shut a machine down and start it again, in the background.

    Parameters
    ----------
    grace
        Seconds its guest may take before its power is cut.
    timeout
        Seconds the guest may take to answer; one that takes longer is left running.
    """
    launched = run_until_done(machines.restart(name, grace=grace, timeout=timeout, progress=output.progress))
    output.notes(launched.notes)
    say_what_waits(launched, wait=True)
    print(name)
