"""Machines that are kept: changed, edited, renamed, cloned, made templates, taken to a file and from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou.facts import ImageFacts
from tinamou.images.progress import Progress, silent
from tinamou.machine import changing, cloning, committing, editing, exporting, importing, renaming
from tinamou.machine.changing import Altered
from tinamou.machine.cloning import Cloned
from tinamou.machine.importing import Imported
from tinamou.state.record import Record

MOST = editing.MOST

__all__ = ["MOST", "clone", "commit", "edit", "export", "machine_file", "rename", "set_fields", "take_in", "template"]


def machine_file(name: str) -> str:
    """What a machine is, as a machine file. Raises StateError."""
    return editing.as_text(name)


async def set_fields(
    name: str, assignments: Sequence[str] = (), settings: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Altered:
    """Change fields of a machine's description, all of them or none; in effect at once where its QEMU takes it.

    ``assignments`` are texts such as ``net[0].forward+=tcp:8080:80``, ``settings`` fields by name. Raises SpecError,
    PlanError, PrepareError with every problem, StateError.
    """
    return await changing.alter(name, assignments, settings, dry_run=dry_run)


async def edit(name: str, text: str, *, before: str = "", dry_run: bool = False, source: str = "") -> Altered:
    """Make a machine what the text of a machine file says, which where it says nothing is as it was. Raises as `set_fields`.

    ``before`` is the text that was edited (`machine_file`): where the machine was changed since, nothing is taken.
    """
    return await editing.take_text(name, text, before=before, dry_run=dry_run, source=source)


async def rename(name: str, new: str) -> renaming.Renamed:
    """Give a machine that is off another name; its guest goes on as who it was. Raises SpecError, StateError."""
    return await renaming.rename(name, new)


async def clone(name: str, new: str, *, linked: bool = False, progress: Progress = silent) -> Cloned:
    """A new machine, off, with another's disks and an identity of its own; ``linked`` copies nothing. Raises StateError."""
    return await cloning.clone(name, new, linked=linked, progress=progress)


async def template(name: str, *, undo: bool = False) -> Record:
    """Make a machine that is off a template, which can be cloned and no more; or a machine again. Raises StateError."""
    return await cloning.mark_template(name, undo=undo)


async def export(name: str, target: Path | None, *, force: bool = False, progress: Progress = silent) -> int:
    """Write a whole machine to a new file, or to stdout without one; the bytes written. Raises StateError, ImageError."""
    return await exporting.export(name, target, force=force, progress=progress)


async def take_in(source: Path | None, name: str = "", *, trust: bool = False, progress: Progress = silent) -> Imported:
    """A machine, off, from a file that `export` wrote, or from stdin; what reaches into this host is left out, unless
    ``trust``. Raises StateError, ImageError, SpecError; there is no machine then."""
    return await importing.take_in(source, name, trust=trust, progress=progress)


async def commit(name: str, image: str, *, disk: str = "", progress: Progress = silent) -> ImageFacts:
    """Make an image of the store of a machine's disk; it must be off or paused. Raises StateError, ImageError."""
    return await committing.commit(name, image, disk=disk, progress=progress)
