"""The verb ``console``: the terminal becomes the guest's serial console."""

from __future__ import annotations

from tinamou.machine import life


def command(name: str) -> int:
    """Attach to a machine's console; Ctrl-] detaches.

    Parameters
    ----------
    name
        The machine.
    """
    import asyncio

    from tinamou.guest.console import attach

    return asyncio.run(attach(life.running(name).directory))
