"""The asynchronous twin of the package: ``from tinamou.aio import Machine``."""

from __future__ import annotations

from tinamou.machine.attended import AsyncMachine as Machine
from tinamou.machine.pool import AsyncPool as Pool
from tinamou.machine.pooled import AsyncSharedPool as SharedPool

__all__ = ["Machine", "Pool", "SharedPool"]
