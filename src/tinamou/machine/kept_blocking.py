"""The twins of `tinamou.machine.kept` for programs without asyncio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tinamou.images.progress import Progress, silent
from tinamou.system.loop_thread import wait_for

if TYPE_CHECKING:
    from tinamou.machine.changing import Altered
    from tinamou.machine.facade import AsyncMachine

__all__ = ["Kept"]


class Kept:
    """The part of `Machine` that is about the machine as a thing of its own, running or not."""

    _machine: AsyncMachine

    @classmethod
    def around(cls, machine: AsyncMachine) -> Self:
        """The twin of one that a program holds."""
        raise NotImplementedError

    def change(self, *assignments: str, dry_run: bool = False, **settings: Any) -> Altered:
        """Change what the machine is, all of it or nothing; see `AsyncMachine.change`."""
        return wait_for(self._machine.change(*assignments, dry_run=dry_run, **settings))

    def rename(self, new: str) -> tuple[str, ...]:
        """Give the machine, which must be off, another name; see `AsyncMachine.rename`."""
        return wait_for(self._machine.rename(new))

    def clone(self, new: str, *, linked: bool = False, progress: Progress = silent) -> Self:
        """A new machine, off and kept, with this one's disks and an identity of its own; see `AsyncMachine.clone`."""
        return self.around(wait_for(self._machine.clone(new, linked=linked, progress=progress)))

    def template(self, *, undo: bool = False) -> None:
        """Make the machine, which must be off, a template; or a machine again; see `AsyncMachine.template`."""
        wait_for(self._machine.template(undo=undo))

    def export(self, target: Path, *, force: bool = False, progress: Progress = silent) -> int:
        """Write the whole machine, running or not, to a new file; see `AsyncMachine.export`."""
        return wait_for(self._machine.export(target, force=force, progress=progress))

    def commit(self, image: str, *, disk: str = "", progress: Progress = silent) -> None:
        """Make an image of a disk of this machine, which must be off or paused; see `AsyncMachine.commit`."""
        wait_for(self._machine.commit(image, disk=disk, progress=progress))
