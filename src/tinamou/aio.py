"""The asynchronous twin of the package: ``from tinamou.aio import Machine``."""

from __future__ import annotations

from tinamou.machine.attended import AsyncMachine as Machine

__all__ = ["Machine"]
