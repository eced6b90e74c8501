"""The verb ``stop``: shut guests down, and cut the power of those that do not go."""

from __future__ import annotations

import asyncio

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine.life import GRACE_SECONDS
from tinamou.operations import machines


def command(name: str, /, *names: str, grace: float = GRACE_SECONDS) -> None:
    """Shut machines down, all at the same time.

    Parameters
    ----------
    names
        More of them.
    grace
        Seconds a guest may take before its power is cut.
    """

    async def stop(one: str) -> None:
        if not await machines.stop(one, grace=grace):
            output.warn(f"{one} did not shut down within {grace:g} s; its power was cut")

    async def all_of_them() -> None:
        ended = await asyncio.gather(*(stop(one) for one in (name, *names)), return_exceptions=True)
        for error in filter(None, ended):
            raise error

    run_until_done(all_of_them())
