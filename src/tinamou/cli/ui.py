"""The verb ``ui``: all machines on the terminal, looked at and driven by keys."""

from __future__ import annotations

from tinamou.cli.loop import run_until_told
from tinamou.errors import TinamouError


def command(*, interval: float = 2.0) -> int:
    """Show all machines on the terminal, and drive them by keys.

    Parameters
    ----------
    interval
        Seconds between two looks.
    """
    try:
        from tinamou.cli.screens import shown
    except ImportError as error:
        fix = "install it: pip install 'tinamou[ui]'"
        raise TinamouError("the library of the terminal's page is not installed", why=str(error), fix=fix) from None
    return run_until_told(shown(interval))
