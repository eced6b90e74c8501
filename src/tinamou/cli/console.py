"""The verb ``console``: the terminal becomes the guest's serial console."""

from __future__ import annotations

from tinamou.cli.loop import run_until_done
from tinamou.machine import life


def command(name: str, /) -> int:
    """Attach to a machine's console; Ctrl-] detaches."""

    from tinamou.guest.console import attach

    return run_until_done(attach(life.running(name, others=True).directory))
