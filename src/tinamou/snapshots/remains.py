"""What crashes leave of checkpoints: halves, those whose owner is gone, memory nobody can find, machines standing still."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import StateError, TinamouError
from tinamou.snapshots.ram import drop_ram_dir
from tinamou.state.machines import machines
from tinamou.state.record import Record
from tinamou.system.lock import locked
from tinamou.system.paths import ram_dir, state_dir
from tinamou.system.remove import remove_tree
from tinamou.system.spawn import Process, alive

if TYPE_CHECKING:
    from tinamou.snapshots.checkpoint import Checkpoint

__all__ = [
    "clear",
    "clear_half_suspended",
    "forget_suspended",
    "give_up",
    "is_suspended",
    "let_run_on_if_left",
    "suspended",
]

UNFINISHED_SECONDS = 60.0


def clear() -> list[str]:
    """Remove what is left; returns one sentence for each thing."""
    folder = state_dir() / "checkpoints"
    there = [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    gone = [path.name for path in there if _over(path) and _removed(path)]
    done = [f"removed the remains of checkpoint {name}" for name in gone]
    for file in ram_dir().glob("*.ram"):
        if not (folder / file.stem).exists():
            file.unlink(missing_ok=True)
            done.append(f"removed memory that no checkpoint needs: {file.name}")
    drop_ram_dir()
    return done + _strangers()


def _removed(directory: Path) -> bool:
    from tinamou.snapshots.checkpoint import read
    from tinamou.snapshots.resting import discard

    found = read(directory)
    if found is not None:
        return give_up(found)
    discard(directory)
    return not directory.exists()


def give_up(checkpoint: Checkpoint) -> bool:
    """Remove a checkpoint whose owner is done with it; tells whether it is gone.

    It stays, a checkpoint like any other, while machines that stay themselves rest on its disks.
    """
    from tinamou.snapshots.checkpoint import write
    from tinamou.snapshots.resting import discard

    resting = any(one.parent == checkpoint.name and not one.ephemeral for one in machines())
    if resting and checkpoint.disks:
        write(dataclasses.replace(checkpoint, owner=None))
        return False
    discard(Path(checkpoint.directory))
    return True


def _over(directory: Path) -> bool:
    """Whether a checkpoint was cut short, or belonged to a process that is gone."""
    from tinamou.snapshots.checkpoint import read

    try:
        found = read(directory)
    except TinamouError:
        return False
    if found is not None:
        return found.owner is not None and not alive(Process(*found.owner))
    return _unlocked(directory)


def _unlocked(directory: Path) -> bool:
    try:
        return not locked(directory / "lock")
    except FileNotFoundError:
        return directory.is_dir() and time.time() - directory.stat().st_mtime > UNFINISHED_SECONDS


def _strangers() -> list[str]:
    """Folders of memory whose state directory does not exist any more."""
    done = []
    for folder in ram_dir().parent.glob(f"tinamou-{os.geteuid()}-*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and not Path((folder / "state").read_text()).exists():
                remove_tree(folder, ignore_errors=False)
                done.append(f"removed memory of checkpoints whose state directory is gone: {folder}")
    return done


def is_suspended(record: Record) -> bool:
    """Whether the machine's folder holds the state it was suspended with."""
    return record.file("suspended/checkpoint.json").exists()


def suspended(record: Record) -> Checkpoint | None:
    """The state a machine was suspended with, None where it is not. Raises StateError for a damaged entry."""
    from tinamou.snapshots.checkpoint import read

    try:
        return read(record.file("suspended"))
    except StateError as error:
        fix = f"put a copy back, or give the saved state up: tinamou kill {record.name}"
        raise StateError(f"the suspended state of {record.name} is damaged", why=error.why, fix=fix) from error


def clear_half_suspended(record: Record) -> str:
    """Remove what a suspension left that was cut short; says so, else is empty. The machine does not run."""
    if is_suspended(record) or not record.file("suspended").is_dir():
        return ""
    remove_tree(record.file("suspended"))
    return f"machine {record.name} ended while it was being suspended; its state could not be kept"


def forget_suspended(record: Record) -> None:
    """Give up the state a machine was suspended with: on stable storage, the entry first."""
    folder = record.file("suspended")
    if folder.is_dir():
        from tinamou.system.durable import sync_folder

        (folder / "checkpoint.json").unlink(missing_ok=True)
        sync_folder(folder)
        remove_tree(folder)


def let_run_on_if_left(record: Record) -> str:
    """Let a machine run on that a dead process left standing still while saving it; says so, else is empty."""
    mark = record.file("checkpointing")
    try:
        pid, started = map(int, mark.read_text().split())
    except (FileNotFoundError, ValueError):
        return ""
    if alive(Process(pid, started)):
        return ""
    with contextlib.suppress(TinamouError):
        _let_run_on(record)
        mark.unlink(missing_ok=True)
        remove_tree(record.file("suspended"))
        return f"machine {record.name} was left standing still by a save that was cut short; it runs on"
    return ""


def _let_run_on(record: Record) -> None:
    from tinamou.control import connect_qmp
    from tinamou.snapshots.save import let_run_on
    from tinamou.system.loop_thread import wait_for

    async def ask() -> None:
        async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
            await let_run_on(session)

    wait_for(ask())
