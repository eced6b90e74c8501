"""Snapshots of a machine by its name: take, go back, merge, flatten; live or off, the caller need not care."""

from __future__ import annotations

import functools
from pathlib import Path

from tinamou.errors import StateError, TinamouError, if_full
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass, replace
from tinamou.machine import persistent
from tinamou.machine.disks import held, known_disks, opened
from tinamou.snapshots.check import DiskFinding, check
from tinamou.snapshots.check import repair as mend
from tinamou.snapshots.create import Taken, create
from tinamou.snapshots.history import DiskEntry, History, Snapshot, load, save
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks, chain_of
from tinamou.snapshots.merge import MAX_DEPTH, flatten, forget, mergeable, tidy
from tinamou.snapshots.quiesce import frozen
from tinamou.snapshots.revert import revert
from tinamou.snapshots.schedule import surplus
from tinamou.state.record import Record

__all__ = [
    "Report",
    "describe",
    "examine",
    "flatten_all",
    "freeze",
    "go_back",
    "history_of",
    "remove",
    "rename",
    "take",
    "take_scheduled",
]


async def take(
    record: Record,
    name: str = "",
    *,
    note: str = "",
    schedule: str = "",
    quiesce: float = 0.0,
    depth: int = MAX_DEPTH,
    progress: Progress = silent,
) -> Taken:
    """Freeze the present state of all disks; then flatten chains deeper than ``depth`` files, 0 for never.

    ``quiesce``, in seconds, has the guest hold its file systems still for at most that long; 0 does not ask it. Raises
    StateError, GuestError, ControlError; nothing has changed then.
    """
    persistent.refuse(record, "snapshotted", "it would stay as it is when the disks go back")
    async with opened(record, "snapshot create", progress=progress) as (disks, history):
        taken = await freeze(record, disks, history, name, note=note, schedule=schedule, quiesce=quiesce)
        await _flatten_deep(disks, taken.history, depth)
        return taken


async def freeze(
    record: Record,
    disks: Disks,
    history: History,
    name: str = "",
    *,
    note: str = "",
    schedule: str = "",
    quiesce: float = 0.0,
) -> Taken:
    """The same of disks that are `opened`, whose chains stay as deep as they are; QEMU's graph is another one then."""
    still = functools.partial(frozen, record.path, quiesce) if quiesce and disks.session else None
    extra = {"quiesce": still} if still else {}
    return await create(disks, history, name, note=note, schedule=schedule, **extra)


async def _flatten_deep(disks: Disks, history: History, depth: int) -> None:
    """What backups left unmerged is merged first: flattened, the next one would have to be a full one."""
    if not depth or all(_depth(disks, entry) <= depth for entry in history.present.values()):
        return
    history, disks = await tidy(disks, history), replace(disks, graph=None)
    for disk, entry in history.present.items():
        if _depth(disks, entry) > depth and mergeable(disks, read_forest(disks, history, disk)):
            history = await flatten(disks, history, disk)


def _depth(disks: Disks, entry: DiskEntry) -> int:
    """How many files a disk is read through: one more than when the disks were locked, one snapshot ago."""
    before = disks.graph.devices.get(entry.device) if disks.graph else None
    return len(before.files) + 1 if before else len(chain_of(disks, entry.top, entry.floor))


async def flatten_all(record: Record, *, progress: Progress = silent) -> int:
    """Copy together what lies between top and floor of every disk; how many disks there was something to do for."""
    async with opened(record, "snapshot flatten", progress=progress) as (disks, history):
        history = await tidy(disks, history)
        before = history.flattened
        for disk in history.present:
            history = await flatten(disks, history, disk)
        await tidy(disks, history)
        return len(history.flattened) - len(before)


async def remove(record: Record, names: list[str], *, progress: Progress = silent) -> History:
    """Strike snapshots and merge their files; what is left reads the same. Raises StateError for an unknown name."""
    async with opened(record, "snapshot rm", progress=progress) as (disks, history):
        for name in names:
            history.snapshot(name)
        for name in names:
            history = forget(disks, history, name)
        try:
            return await tidy(disks, history)
        except TinamouError as error:
            flatten = f"tinamou snapshot flatten {record.name}"
            why = str(error)
            what = "the snapshots are gone, but their files are not merged yet"
            raise StateError(what, why=why, fix=if_full(why, flatten) or flatten) from error


async def go_back(record: Record, name: str, *, progress: Progress = silent) -> History:
    """Make a snapshot's state the present one; the machine must be off."""
    async with opened(record, "snapshot revert", progress=progress) as (disks, history):
        return await tidy(disks, revert(disks, history, name))


async def rename(record: Record, name: str, new: str) -> Snapshot:
    """Give a snapshot another name."""
    if new.isdecimal() or "/" in new or not new:
        raise StateError(f"{new!r} cannot be a snapshot's name", fix="a word with a letter in it, without slash")
    async with opened(record, "snapshot rename") as (disks, history):
        if any(new in (one.name, str(one.number)) for one in history.snapshots):
            raise StateError(f"there is a snapshot {new} already", fix="choose another name")
        return _edit(disks, history, replace(history.snapshot(name), name=new))


async def describe(record: Record, name: str, note: str) -> Snapshot:
    """Write a note on a snapshot."""
    async with opened(record, "snapshot note") as (disks, history):
        return _edit(disks, history, replace(history.snapshot(name), note=note))


def _edit(disks: Disks, history: History, changed: Snapshot) -> Snapshot:
    shots = tuple(changed if one.number == changed.number else one for one in history.snapshots)
    save(disks.directory, replace(history, snapshots=shots))
    return changed


@dataclass(frozen=True)
class Report:
    """What a check found, after repairs where these were asked for; ``repaired`` maps files to the copies kept of them."""

    findings: list[DiskFinding]
    repaired: dict[str, Path]


async def examine(record: Record, *, deep: bool = True, repair: bool = False) -> Report:
    """Check a machine's disks, and repair damaged files when asked. Raises StateError for a repair while it runs."""
    if repair and record.running:
        raise StateError("files that are in use cannot be repaired", fix=f"tinamou stop {record.name}")
    directory = Path(record.directory)
    async with held(record, "check") as disks:
        history = await known_disks(record, disks, load(disks.directory))
        findings = await check(disks, history, deep=deep)
        damaged = {one.file for one in findings if repair and one.severity != "note" and (directory / one.file).is_file()}
        repaired = {file: await mend(disks, file) for file in sorted(damaged)}
        return Report(await check(disks, history, deep=deep) if repaired else findings, repaired)


def history_of(record: Record) -> History:
    """What is known without asking anyone."""
    return load(Path(record.directory))


async def take_scheduled(record: Record, label: str, keep: int, *, quiesce: float = 0.0) -> Taken:
    """Take a schedule's snapshot and remove those beyond the newest ``keep``."""
    taken = await take(record, schedule=label, quiesce=quiesce)
    if old := surplus(taken.history, label, keep):
        await remove(record, [str(one.number) for one in old])
    return taken
