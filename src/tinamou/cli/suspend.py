"""The verb ``suspend``: save a machine to disk and end it, to be resumed later."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str) -> None:
    """Save a machine to disk and end it; resume takes it up where it was, also after a restart of the host."""
    saved = run_until_done(machines.suspend(name))
    output.say(f"{saved.memory >> 20} MiB of memory in {saved.state.size >> 20} MiB, in {saved.took:.1f} s")
