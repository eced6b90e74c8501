"""Backups of a machine by its name, machines from backups, and the drill that proves a backup by starting it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import persistent
from tinamou.machine.disks import opened
from tinamou.machine.snapshots import freeze
from tinamou.snapshots.backup import copy_out, standalone, verify
from tinamou.snapshots.backup_nbd import check_target, copy_to_nbd
from tinamou.snapshots.backup_shelf import Backup, Shelf, give_extras, read_shelf
from tinamou.snapshots.merge import forget, tidy
from tinamou.state import machines
from tinamou.state.record import Record, change

__all__ = ["Drilled", "back_up", "drill", "restore"]

SCHEDULE = "backup"
"""Schedule name of the snapshot that the next incremental backup starts from; one for each shelf is kept."""


@dataclass(frozen=True)
class Drilled:
    """A backup that was started: seconds until its guest answered, and what it said it is."""

    backup: int
    seconds: float
    said: str


async def back_up(
    record: Record, folder: Path, *, nbd: str = "", full: bool = False, quiesce: float = 0.0, progress: Progress = silent
) -> Backup:
    """Add a backup of a machine, running or off, to the shelf in ``folder``; ``quiesce`` as for `take`.

    With ``nbd``, a URL in which ``{disk}`` stands for a disk's name, the data go to NBD exports, and the shelf lists them.
    The machine keeps one snapshot for each shelf, so that the next backup copies only what was written since. Raises
    StateError when the shelf is another machine's.
    """
    persistent.refuse(record, "backed up", "no backup would have it")
    shelf = _shelf_of(record, folder)
    _refuse_mixed(shelf, nbd)
    if nbd:
        check_target(nbd, 1)
    tag = f"{SCHEDULE}:{shelf.folder}"
    async with opened(record, "backup", progress=progress) as (disks, history):
        note = f"for the backup in {shelf.folder}"
        taken = await freeze(record, disks, history, note=note, schedule=tag, quiesce=quiesce)
        disks, history, entry = late.replace(disks, graph=None), taken.history, late.asdict(record)
        try:
            if nbd:
                after = await copy_to_nbd(disks, history, taken.snapshot, shelf, entry, nbd, full=full, progress=progress)
            else:
                after = await copy_out(disks, history, taken.snapshot, shelf, entry, full=full, progress=progress)
        except BaseException:
            await tidy(disks, forget(disks, history, str(taken.snapshot.number)))
            raise
        for old in [one for one in history.snapshots if one.schedule == tag and one.number != taken.snapshot.number]:
            history = forget(disks, history, str(old.number))
        await tidy(disks, history, sparing=True)
        return after.backups[-1]


def _refuse_mixed(shelf: Shelf, nbd: str) -> None:
    """An NBD export holds one state, a folder many: one shelf lists either."""
    if shelf.backups and bool(shelf.backups[-1].remote) != bool(nbd):
        has = "in NBD exports" if shelf.backups[-1].remote else "in the folder itself"
        raise StateError(f"the backups {shelf.folder} lists are {has}", fix="choose another folder for these")


def _shelf_of(record: Record, folder: Path) -> Shelf:
    shelf = read_shelf(folder.absolute())
    if shelf.machine and shelf.machine not in (record.name, *record.former):
        raise StateError(f"{folder} holds backups of {shelf.machine}, not of {record.name}", fix="choose another folder")
    return late.replace(shelf, machine=shelf.machine or record.name)


async def restore(
    folder: Path, name: str, *, number: int = 0, progress: Progress = silent, isolated: bool = False
) -> Record:
    """A new machine, off, with the disks and the description of a backup, which is verified first.

    Without network when ``isolated``.

    Raises ImageError, StateError.
    """
    shelf = read_shelf(folder.absolute())  # noqa: ASYNC240
    backup = shelf.find(number)
    await verify(shelf, backup)
    with machines.making(name) as directory:
        record = _record(backup, directory, isolated)
        for disk in backup.tops:
            await standalone(shelf, backup, disk, directory / f"{disk}.qcow2", progress=progress)
        give_extras(shelf, backup, directory)
        _hand_over(directory, record.uid)
        (record,) = machines.entered(record)
    return record


def _record(backup: Backup, directory: Path, isolated: bool) -> Record:
    known = {field.name for field in late.fields(Record)}
    data = cast("dict[str, Any]", {key: value for key, value in backup.record.items() if key in known})
    spec = {**(data.get("later") or data["spec"]), "name": directory.name}
    same = {"former": data.get("former", [])} if data["name"] == directory.name else {"former": []}
    return late.replace(
        Record(**{**data, **same, "later": {}, "base": "", "template": False, "notes": []}),
        name=directory.name,
        directory=str(directory),
        spec={**spec, "net": []} if isolated else spec,
        ephemeral=False,
        uid=machines.lease_uid(directory),
        created=time.time(),
        ssh_port=machines.free_port() if data["ssh_port"] and not isolated else None,
        pid=0,
        started=0,
        owner_pid=0,
        owner_started=0,
    )


def _hand_over(directory: Path, uid: int | None) -> None:
    for path in directory.rglob("*"):
        if uid is not None and (path.suffix in (".qcow2", ".iso") or path.name == files.UEFI_VARS):
            os.chown(path, uid, uid)


async def drill(folder: Path, *, number: int = 0, seconds: float = 300.0, progress: Progress = silent) -> Drilled:
    """Restore a backup into a throw-away machine without network, start it, have its guest run a command, remove it.

    Raises ImageError for a damaged backup, GuestError when its guest does not answer within ``seconds``.
    """
    from tinamou.machine import life
    from tinamou.machine.booting import begun_again, until_up
    from tinamou.machine.connected import Connected

    began = time.monotonic()
    record = await restore(folder, machines.throwaway_name("drill"), number=number, progress=progress, isolated=True)
    try:
        started = await begun_again(record, dies_with_parent=True)
        machine = Connected(change(started.record, ephemeral=True), started.plan, timeout=seconds)
        try:
            await until_up(machine, answer=False)
            said = (await machine.run("uname -a; cat /etc/hostname 2>/dev/null", check=False)).text
        finally:
            await machine.end()
    finally:
        if record.file(files.RECORD).exists():
            life.remove(record, force=True)
    return Drilled(read_shelf(folder).find(number).number, time.monotonic() - began, said)
