"""The verb ``pause``: freeze a machine's virtual CPUs."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str, /) -> None:
    """Freeze a machine."""
    run_until_done(machines.pause(name))
