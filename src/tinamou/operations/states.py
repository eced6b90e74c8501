"""Whole states of machines: checkpoints taken, forked, restored, moved and removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import checkpoints, fork_nets, life
from tinamou.machine.forking import Request, checkpoint_by_name, leave_running
from tinamou.snapshots import travel
from tinamou.snapshots.checkpoint import Checkpoint, check
from tinamou.state import machines
from tinamou.system.loop_thread import in_thread

__all__ = ["Forked", "Imported", "checkpoint", "export", "fork", "remove", "restore", "take_in"]


@dataclass(frozen=True)
class Forked:
    """The checkpoint machines were made of, their names, and what must be said of them."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A checkpoint that came from a file, and what keeps it from being loaded here."""

    checkpoint: Checkpoint
    problems: tuple[str, ...]


async def checkpoint(name: str, checkpoint: str = "", *, kind: Request = "auto", progress: Progress = silent) -> Checkpoint:
    """Save the whole state of a running machine, which goes on. Raises StateError, ControlError, GuestError."""
    return await checkpoint_by_name(life.running(name), checkpoint, kind=kind, progress=progress)


async def fork(name: str, count: int = 1, *, names: Sequence[str] = (), progress: Progress = silent) -> Forked:
    """Running copies of a running machine, or of a checkpoint, each with its own identity; they stay.

    Raises StateError, ControlError, GuestError, LaunchError.
    """
    record = next((one for one in machines.machines() if one.name == name), None)
    running = record is not None and record.running
    if record is not None and running:
        await in_thread(fork_nets.refuse_twice, name, record.spec, count)
        source = await checkpoint_by_name(record, progress=progress)
    else:
        source = checkpoints.find(name)
    if source.kind == "portable":
        progress(f"{source.name} is portable, as {source.why}: each fork loads a memory of its own, which is slower", None)
    made, notes = await leave_running(source, count, names=names)
    return Forked(source, tuple(made), tuple(notes))


async def restore(checkpoint: str, *, name: str = "") -> Forked:
    """Start the machine of a checkpoint again, as the same machine. Raises StateError, LaunchError."""
    found = checkpoints.find(checkpoint)
    made, notes = await leave_running(found, 1, names=[name or found.machine], same=True)
    return Forked(found, tuple(made), tuple(notes))


async def remove(checkpoint: str, *, force: bool = False) -> list[str]:
    """Remove a checkpoint; with ``force`` also what rests on it. Returns what went with it. Raises StateError."""
    return await in_thread(checkpoints.remove, checkpoint, force=force)


async def export(checkpoint: str, file: Path, *, progress: Progress = silent) -> int:
    """Write a portable checkpoint into one file, for another host; its size in bytes. Raises StateError, OSError."""
    await travel.export(checkpoints.find(checkpoint), file.absolute(), progress=progress)  # noqa: ASYNC240
    return file.stat().st_size  # noqa: ASYNC240


async def take_in(file: Path, name: str = "") -> Imported:
    """Make a checkpoint of an exported file. Raises StateError for a file that is damaged, or a name in use."""
    taken = await travel.take_in(file.absolute(), name)  # noqa: ASYNC240
    try:
        check(taken)
    except StateError as error:
        return Imported(taken, tuple(map(str, error.problems)))
    return Imported(taken, ())
