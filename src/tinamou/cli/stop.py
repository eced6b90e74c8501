"""The verb ``stop``: shut a guest down, and cut the power when it does not go."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine import life
from tinamou.machine.connected import Connected


def command(name: str, /, *, grace: float = life.GRACE_SECONDS) -> None:
    """Shut a machine down.

    Parameters
    ----------
    name
        The machine.
    grace
        Seconds the guest may take before the power is cut.
    """
    if not run_until_done(life.stop(Connected.visiting(life.running(name)), grace=grace)):
        output.warn(f"{name} did not shut down within {grace:g} s; its power was cut")
