"""The verb ``reset``: press the reset button."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str, /) -> None:
    """Press the reset button of a machine."""
    run_until_done(machines.reset(name))
