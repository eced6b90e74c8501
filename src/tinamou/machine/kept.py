"""What a program does with a machine that is kept: its description changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinamou.machine.of_host import of_host

if TYPE_CHECKING:
    from tinamou.machine.changing import Altered
    from tinamou.state.record import Record

__all__ = ["Kept"]


@of_host
class Kept:
    """The part of `AsyncMachine` that is about the machine as a thing of its own, running or not."""

    @property
    def record(self) -> Record:
        """Its record in the state directory."""
        raise NotImplementedError

    async def change(self, *assignments: str, dry_run: bool = False, **settings: Any) -> Altered:
        """Change what the machine is: ``change("net[0].forward+=tcp:8080:80", memory="8G")``; all of it or nothing.

        What its QEMU takes while it runs is in effect at once, the rest from the next start on; the result says which, and
        what differs in the plan. ``settings`` are the fields of a machine file. With ``dry_run`` nothing is changed. Raises
        SpecError, PlanError, PrepareError with every problem, StateError.
        """
        from tinamou.machine.changing import alter

        return await alter(self.record.name, assignments, settings, dry_run=dry_run)
