"""The verb ``template``: keep a machine as what others are cloned from."""

from __future__ import annotations

from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(name: str, /, *, undo: Switch = False) -> None:
    """Make a machine that is off a template: it can be cloned, and not be started or changed.

    Parameters
    ----------
    undo
        Make it a machine again, where no linked clone rests on it.
    """
    print(run_until_done(keeping.template(name, undo=undo)).name)
