"""The asynchronous twin of the package: ``from tinamou.aio import Machine``."""

from __future__ import annotations

from tinamou.machine.facade import AsyncMachine as Machine
from tinamou.machine.facade_pools import AsyncPool as Pool
from tinamou.machine.facade_pools import AsyncSharedPool as SharedPool
from tinamou.machine.known import async_fork as fork
from tinamou.machine.known import async_inject_drivers as inject_drivers
from tinamou.machine.known import async_machines as machines
from tinamou.machine.known import async_open as open
from tinamou.machine.known import checkpoints
from tinamou.machine.parts_of import AsyncDisks as Disks
from tinamou.machine.parts_of import AsyncNics as Nics
from tinamou.machine.parts_of import AsyncSnapshots as Snapshots

__all__ = [
    "Disks",
    "Machine",
    "Nics",
    "Pool",
    "SharedPool",
    "Snapshots",
    "checkpoints",
    "fork",
    "inject_drivers",
    "machines",
    "open",
]
