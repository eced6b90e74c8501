"""The verb ``resume``: let a frozen machine run on, or take a suspended one up."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import machines


def command(name: str, /, *, json: Switch = False) -> None:
    """Let a frozen machine run on, or take a suspended one up where it was; its guest's clock is set to this host's."""
    clock = run_until_done(machines.resume(name))
    if clock.note:
        output.warn(clock.note)
    if json:
        output.print_json({**late.asdict(clock), "note": clock.note})
