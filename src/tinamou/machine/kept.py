"""What a program does with a machine that is kept: its description changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tinamou.images.progress import Progress, silent
from tinamou.machine.of_host import of_host
from tinamou.state.record import Record, newest

if TYPE_CHECKING:
    from tinamou.machine.changing import Altered

__all__ = ["Kept"]


@of_host
class Kept:
    """The part of `AsyncMachine` that is about the machine as a thing of its own, running or not."""

    @property
    def record(self) -> Record:
        """Its record in the state directory."""
        raise NotImplementedError

    @classmethod
    def open(cls, name: str) -> Self:
        """A machine that exists, by its name."""
        raise NotImplementedError

    def _is_now(self, record: Record) -> None:
        """The machine has another record from now on."""
        raise NotImplementedError

    async def change(self, *assignments: str, dry_run: bool = False, **settings: Any) -> Altered:
        """Change what the machine is: ``change("net[0].forward+=tcp:8080:80", memory="8G")``; all of it or nothing.

        What its QEMU takes while it runs is in effect at once, the rest from the next start on; the result says which, and
        what differs in the plan. ``settings`` are the fields of a machine file. With ``dry_run`` nothing is changed. Raises
        SpecError, PlanError, PrepareError with every problem, StateError.
        """
        from tinamou.machine.changing import alter

        done = await alter(self.record.name, assignments, settings, dry_run=dry_run)
        self._is_now(newest(self.record))
        return done

    async def rename(self, new: str) -> tuple[str, ...]:
        """Give the machine, which must be off, another name; its guest goes on as who it was.

        Returns what could not be told its new name yet, a sentence each; every command tries that again. Raises SpecError,
        StateError; it has its old name then.
        """
        from tinamou.machine.renaming import rename

        done = await rename(self.record.name, new)
        self._is_now(done.record)
        return done.notes

    async def clone(self, new: str, *, linked: bool = False, progress: Progress = silent) -> Self:
        """A new machine, off and kept, with this one's disks as they are now and an identity of its own.

        ``linked`` copies nothing: both read the same files, which are never written again. Raises SpecError, StateError,
        ImageError; there is no clone then.
        """
        from tinamou.machine.cloning import clone

        await clone(self.record.name, new, linked=linked, progress=progress)
        return self.open(new)

    async def template(self, *, undo: bool = False) -> None:
        """Make the machine, which must be off, a template, which can be cloned and no more; or a machine again.

        Raises StateError.
        """
        from tinamou.machine.cloning import mark_template

        self._is_now(await mark_template(self.record.name, undo=undo))

    async def export(self, target: Path, *, force: bool = False, progress: Progress = silent) -> int:
        """Write the whole machine, running or not, to a new file; the bytes written. `tinamou.import_machine` takes it in.

        ``force`` replaces a regular file that is there. Raises StateError, ImageError, PrepareError, OSError; there is no
        new file then.
        """
        from tinamou.machine.exporting import export

        return await export(self.record.name, target, force=force, progress=progress)

    async def commit(self, image: str, *, disk: str = "", progress: Progress = silent) -> None:
        """Make an image, of which others can be started, of a disk of this machine, which must be off or paused.

        Raises StateError, ImageError; there is no image then.
        """
        from tinamou.machine.committing import commit

        await commit(self.record.name, image, disk=disk, progress=progress)
