"""One network measured in a throw-away tiny guest: what `tinamou net compare` and bench/net.py are made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.machine.booting import started, until_up
from tinamou.spec import load_spec

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent
    from tinamou.network.speed import Speed

__all__ = ["trial"]


async def trial(net: object, *, cpus: int = 1, also: Callable[[Agent], Awaitable[None]] | None = None) -> Speed:
    """Start a guest with the network, measure, end it. Raises GuestError when nothing leads from this host to it.

    ``also`` is called with the guest's agent once the measuring is done.
    """
    from tinamou.network.attend import examine, speed_of

    async with started(load_spec({"cpus": cpus, "memory": "256M", "net": [net]})) as machine:
        await until_up(machine)
        session = await machine.session()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            report = await examine(machine.record, session, machine.agent)
            nic = report.nics[0]
            if nic.guest and any("." in address for address in nic.guest.addresses):
                speed = await speed_of(nic, machine.agent, pid=machine.record.pid)
                if speed:
                    if also:
                        await also(machine.agent)
                    return speed
            await asyncio.sleep(0.3)
    raise GuestError("the network could not be measured", why="the guest got no address, or this host has no way to it")
