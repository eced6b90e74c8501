"""Making true again what a crash left half done: from QEMU's block graph while it runs, from the files' headers when not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tinamou import late
from tinamou.errors import StateError
from tinamou.snapshots import extras, merge, revert
from tinamou.snapshots.create import grown, overlay_written, taken
from tinamou.snapshots.graph import attached, close_unused
from tinamou.snapshots.history import History, Snapshot, load, save
from tinamou.snapshots.jobs import drop_orphans
from tinamou.snapshots.machine_disks import Disks, listed_disks
from tinamou.state.record import read as read_record
from tinamou.system.durable import PART

__all__ = ["put_right", "reconcile"]


async def reconcile(disks: Disks) -> History:
    """The history as it truly is: an operation that was cut short has been finished or undone, and its files with it.

    The machine's disks must be locked. Raises StateError, ImageError, ControlError.
    """
    if disks.session is not None:
        await drop_orphans(disks.session)
    return await put_right(disks, load(disks.directory))


async def put_right(disks: Disks, history: History) -> History:
    """The same where no job is left over."""
    parts = [*disks.directory.glob(f"*.qcow2{PART}")]
    if parts and disks.session is not None:  # QEMU opens overlays before it is written down that they are begun
        await close_unused(disks.session, disks.directory)
    for part in parts:
        part.unlink()
    if history.intent is None:
        return history
    kind, arguments = history.intent.kind, history.intent.arguments
    if kind in ("create", "grow"):
        history = await _finish_switch(disks, history, arguments)
    elif kind == "revert":
        history = revert.finish(disks, history, arguments)
    elif kind == "commit":
        history = await merge.finish_commit(disks, history, arguments)
    elif kind == "disk":
        history = _finish_listing(disks, history, str(arguments["disk"]))
    else:
        raise StateError(f"{disks.directory.name}: an unknown operation was cut short: {kind}")
    await merge.remove_unreachable(disks, history)
    return history


def _finish_listing(disks: Disks, history: History, name: str) -> History:
    """A disk was being added or removed: it is the machine's if its description says so, else its files go."""
    record = read_record(disks.directory)
    if record is not None and name in listed_disks(record):
        return save(disks.directory, late.replace(history, intent=None))
    return merge.drop_disk(disks, history, name)


async def _finish_switch(disks: Disks, history: History, arguments: Mapping[str, object]) -> History:
    """A switch took place if QEMU writes to its overlays, or, when QEMU is gone, if something is in one of them.

    Empty overlays of a machine that is off mean that nothing is lost: without them the disks read the same.
    """
    files = cast("Mapping[str, str]", arguments["files"])
    snapshot = cast("dict[str, str] | None", arguments.get("snapshot"))
    shot = Snapshot(**snapshot) if snapshot else None  # type: ignore[arg-type]
    if await _switched(disks, files):
        return save(disks.directory, taken(history, shot, files) if shot else grown(history, files))
    if disks.session is not None:
        await close_unused(disks.session, disks.directory)
    for file in files.values():
        disks.path(file).unlink(missing_ok=True)
    if shot:
        extras.drop(disks, shot.number)
    return save(disks.directory, late.replace(history, intent=None))


async def _switched(disks: Disks, files: Mapping[str, str]) -> bool:
    if disks.session is not None:
        tops = {disks.name(one.files[0]) for one in (await attached(disks.session)).values() if one.files}
        return bool(tops & set(files.values()))
    paths = [disks.path(file) for file in files.values()]
    return all(path.exists() for path in paths) and any(overlay_written(path) for path in paths)
