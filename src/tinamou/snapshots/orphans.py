"""What crashes and older versions leave of checkpoints: halves, those whose owner is gone, machines standing still."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.errors import StateError, TinamouError
from tinamou.facts import files
from tinamou.state.machines import machines
from tinamou.state.record import Record
from tinamou.system.durable import sync_folder
from tinamou.system.lock import locked
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import folder_fault
from tinamou.system.remove import remove_tree
from tinamou.system.spawn import Process, alive

if TYPE_CHECKING:
    from tinamou.snapshots.checkpoint import Checkpoint

__all__ = [
    "being_saved",
    "clear",
    "clear_half_suspended",
    "forget_suspended",
    "give_up",
    "is_suspended",
    "let_run_on_if_left",
    "suspended",
]

UNFINISHED_SECONDS = 60.0

_ASK_SECONDS = 2.0
"""How long a machine's QEMU is asked to run on, by any command: it may be another machine's that the command is about."""


def clear() -> list[str]:
    """Remove what is left; returns one sentence for each thing."""
    folder = state_dir() / "checkpoints"
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")] if folder.is_dir() else []
    return [*(said for path in there if (said := _cleared(path))), *_open_memory()]


def _cleared(directory: Path) -> str:
    """Remove the checkpoint in a folder if it is none any more, and say so; else empty."""
    from tinamou.snapshots.checkpoint import OutdatedError, read
    from tinamou.snapshots.resting import discard

    if wrong := folder_fault(directory):
        return f"{wrong}: it is left alone"
    try:
        found = read(directory)
    except OutdatedError as error:
        discard(directory)
        return f"removed checkpoint {directory.name}: {error.why}; {error.fix}"
    except TinamouError as error:
        return f"{error.what}: {error.why}; {error.fix}"
    if found is None and _unlocked(directory):
        discard(directory)
        gone = not directory.exists()
    else:
        gone = found is not None and found.owner is not None and not alive(Process(*found.owner)) and give_up(found)
    return f"removed the remains of checkpoint {directory.name}" if gone else ""


def give_up(checkpoint: Checkpoint) -> bool:
    """Remove a checkpoint whose owner is done with it; tells whether it is gone.

    It stays, without its memory, while machines that stay themselves rest on its disks.
    """
    from tinamou.snapshots.checkpoint import write
    from tinamou.snapshots.ram import let_go
    from tinamou.snapshots.resting import discard

    resting = any(one.parent == checkpoint.name and not one.ephemeral for one in machines())
    if resting and checkpoint.disks:
        write(late.replace(checkpoint, owner=None, ram=None))
        let_go(Path(checkpoint.directory), checkpoint.ram)
        return False
    discard(Path(checkpoint.directory))
    return True


def _unlocked(directory: Path) -> bool:
    try:
        return not locked(directory / "lock")
    except FileNotFoundError:
        return directory.is_dir() and time.time() - directory.stat().st_mtime > UNFINISHED_SECONDS


def _open_memory() -> list[str]:
    """Remove the folder in which older versions kept memory, open to everybody; what is not ours there is left alone."""
    folder = f"/dev/shm/tinamou-{os.geteuid()}-{zlib.crc32(os.fsencode(state_dir())):08x}"  # noqa: S108
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return []
        for name in os.listdir(descriptor):  # noqa: PTH208
            if name == "state" or name.endswith(".ram"):
                os.unlink(name, dir_fd=descriptor)
        os.rmdir(folder)  # noqa: PTH106
    except OSError as error:
        return [f"{folder}, where an older tinamou kept memory, cannot be removed: {error.strerror}"]
    finally:
        os.close(descriptor)
    return [f"removed {folder}: memory of checkpoints, which an older tinamou left open to every user"]


def is_suspended(record: Record) -> bool:
    """Whether the machine's folder holds the state it was suspended with."""
    return record.file("suspended/checkpoint.json").exists()


def suspended(record: Record) -> Checkpoint | None:
    """The state a machine was suspended with, None where it is not. Raises StateError for a damaged entry."""
    from tinamou.snapshots.checkpoint import read

    try:
        return read(record.file(files.SUSPENDED))
    except StateError as error:
        fix = f"put a copy back, or give the saved state up: tinamou kill {record.name}"
        raise StateError(f"the suspended state of {record.name} is damaged", why=error.why, fix=fix) from error


def clear_half_suspended(record: Record) -> str:
    """Remove what a suspension left that was cut short; says so, else is empty. The machine does not run."""
    if is_suspended(record) or not record.file(files.SUSPENDED).is_dir():
        return ""
    remove_tree(record.file(files.SUSPENDED))
    return f"machine {record.name} ended while it was being suspended; its state could not be kept"


def forget_suspended(record: Record) -> None:
    """Give up the state a machine was suspended with: on stable storage, the entry first."""
    folder = record.file(files.SUSPENDED)
    if folder.is_dir():
        (folder / "checkpoint.json").unlink(missing_ok=True)
        sync_folder(folder)
        remove_tree(folder)


def being_saved(record: Record) -> bool:
    """Whether a process that lives is at the machine's state (`tinamou.snapshots.save.marked`)."""
    try:
        pid, started = map(int, record.file(files.CHECKPOINTING).read_text().split())
    except (FileNotFoundError, ValueError):
        return False
    return alive(Process(pid, started))


def let_run_on_if_left(record: Record) -> str:
    """Let a machine run on that a dead process left standing still while saving it; says so, else is empty."""
    mark = record.file(files.CHECKPOINTING)
    if not mark.exists() or being_saved(record):
        return ""
    with contextlib.suppress(TinamouError, TimeoutError):  # the next command tries again
        clock = _let_run_on(record)
        mark.unlink(missing_ok=True)
        remove_tree(record.file(files.SUSPENDED))
        said = f"machine {record.name} was left standing still by a save that was cut short; it runs on"
        return f"{said}, but {clock}" if clock else said
    return ""


def _let_run_on(record: Record) -> str:
    """Returns what must be said of its guest's clock."""
    import asyncio

    from tinamou.control import connect_qmp
    from tinamou.guest.clock import set_clock
    from tinamou.snapshots.save import let_run_on
    from tinamou.system.loop_thread import wait_for

    async def ask() -> str:
        async with asyncio.timeout(_ASK_SECONDS):
            session = await connect_qmp(record.directory, alive=lambda: record.running)
        async with session:
            async with asyncio.timeout(_ASK_SECONDS):
                await let_run_on(session)
            return (await set_clock(record, session)).note

    return wait_for(ask())
