"""The asynchronous twin of the package: ``from tinamou.aio import Machine``."""

from __future__ import annotations

from tinamou.machine.facade import AsyncMachine as Machine
from tinamou.machine.facade import AsyncPool as Pool
from tinamou.machine.facade import AsyncSharedPool as SharedPool

__all__ = ["Machine", "Pool", "SharedPool"]
