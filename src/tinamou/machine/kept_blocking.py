"""The twins of `tinamou.machine.kept` for programs without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinamou.system.loop_thread import wait_for

if TYPE_CHECKING:
    from tinamou.machine.changing import Altered
    from tinamou.machine.facade import AsyncMachine

__all__ = ["Kept"]


class Kept:
    """The part of `Machine` that is about the machine as a thing of its own, running or not."""

    _machine: AsyncMachine

    def change(self, *assignments: str, dry_run: bool = False, **settings: Any) -> Altered:
        """Change what the machine is, all of it or nothing; see `AsyncMachine.change`."""
        return wait_for(self._machine.change(*assignments, dry_run=dry_run, **settings))
