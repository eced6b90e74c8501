"""The verb ``keys``: press keys of a machine."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.operations import screens


def command(name: str, /, *keys: str) -> None:
    """Press keys of a machine, one after another; those with a dash between are held together.

    Parameters
    ----------
    keys
        ctrl-alt-del, f2, esc, enter, up, a, …: the names of QEMU's QKeyCode, or single characters.
    """
    run_until_done(screens.press(name, keys))
