"""Backups in a folder: each a full copy or what was written since the one before, with checksums, readable by qemu-img.

::

    FOLDER/backup.json              what there is; replaced whole
    FOLDER/0001/disk0.qcow2         a full backup: everything the disk reads as, on its own
    FOLDER/0002/disk0-7.qcow2       an incremental one: the files written since, each over the one before
    FOLDER/0001/image.json, vars.fd what else the machine needs to start

An incremental backup copies the overlays that were frozen since the last one: they hold exactly what was written. Why not
dirty bitmaps: docs/decisions/0041-backups-from-overlays.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tinamou.errors import ImageError, StateError
from tinamou.images.chain import read_chain
from tinamou.images.offline import offline
from tinamou.images.progress import Progress, silent
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.exec_async import run_async

__all__ = ["Backup", "Shelf", "copy_out", "read_shelf", "standalone", "verify"]

FILE = "backup.json"
_READ = 4 << 20


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. ``tops`` says which file each disk is read through, ``sums`` the SHA-256 of every file it added.

    ``snapshot`` is the number of the machine's snapshot it was copied from; ``parent`` the backup it builds on, 0 for a full
    one. File names are relative to the shelf.
    """

    number: int
    kind: str
    created: float
    snapshot: int
    parent: int
    tops: Mapping[str, str]
    sums: Mapping[str, str]
    size: int = 0
    quiesced: bool = False


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of backups of one machine; ``record`` and ``image`` are the machine's entry and image, as plain data."""

    folder: Path
    machine: str = ""
    record: Mapping[str, object] = field(default_factory=dict)
    backups: tuple[Backup, ...] = ()

    def find(self, number: int = 0) -> Backup:
        """The backup of that number, the newest for 0. Raises StateError."""
        for one in reversed(self.backups):
            if number in (0, one.number):
                return one
        have = ", ".join(str(one.number) for one in self.backups) or "none"
        raise StateError(f"{self.folder} has no backup {number or ''}".rstrip(), fix=f"it has: {have}")

    def line(self, backup: Backup) -> tuple[Backup, ...]:
        """A backup and all it builds on, newest first."""
        line = [backup]
        while line[-1].parent:
            line.append(self.find(line[-1].parent))
        return tuple(line)


def read_shelf(folder: Path) -> Shelf:
    """The backups in a folder; an empty shelf where there is none. Raises StateError for one that is damaged."""
    try:
        data = json.loads((folder / FILE).read_text())
        return Shelf(folder, data["machine"], data["record"], tuple(Backup(**one) for one in data["backups"]))
    except FileNotFoundError:
        return Shelf(folder)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"the list of backups in {folder} is damaged", why=str(error)) from error


async def copy_out(
    disks: Disks, history: History, shot: Snapshot, shelf: Shelf, *, full: bool = False, progress: Progress = silent
) -> Shelf:
    """Add a backup of a snapshot to the shelf; incremental when the last one's snapshot is still below it.

    Written beside the shelf's list first, which names it only when it is complete. Raises ImageError, StateError, OSError.
    """
    number = max((one.number for one in shelf.backups), default=0) + 1
    last = None if full else _base(disks, history, shot, shelf)
    folder = shelf.folder / f"{number:04}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        tops = {}
        for disk, file in shot.files.items():
            below = last.tops.get(disk) if last else None
            if below and last:
                tops[disk] = await _increment(
                    disks, history, (disk, file), shelf.folder / below, folder, _old(history, last)
                )
            else:
                tops[disk] = await _whole(disks, file, folder / f"{disk}.qcow2", progress)
        _keep_extras(disks, shot, folder)
        sums = {str(path.relative_to(shelf.folder)): await asyncio.to_thread(_sum, path) for path in _all_files(folder)}
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    backup = Backup(
        number=number,
        kind="incremental" if last else "full",
        created=shot.created,
        snapshot=shot.number,
        parent=last.number if last else 0,
        tops={disk: str(path.relative_to(shelf.folder)) for disk, path in tops.items()},
        sums=sums,
        size=sum(path.stat().st_blocks * 512 for path in _all_files(folder)),
        quiesced=shot.quiesced,
    )
    return _save(dataclasses.replace(shelf, backups=(*shelf.backups, backup)))


def _base(disks: Disks, history: History, shot: Snapshot, shelf: Shelf) -> Backup | None:
    """The newest backup whose snapshot every disk of the new one still rests on, None where a full one is needed."""
    for backup in reversed(shelf.backups):
        old = next((one for one in history.snapshots if one.number == backup.snapshot), None)
        if old and all(_rests(disks, history, disk, shot.files[disk], old.files.get(disk, "")) for disk in shot.files):
            return backup
    return None


def _rests(disks: Disks, history: History, disk: str, file: str, old: str) -> bool:
    return bool(old) and old in read_forest(disks, history, disk).chain(file)


def _old(history: History, backup: Backup) -> Snapshot:
    return history.snapshot(str(backup.snapshot))


async def _whole(disks: Disks, file: str, target: Path, progress: Progress) -> Path:
    argv = [disks.qemu_img, "convert", "-p", "-U", "-W", "-O", "qcow2", file, str(target)]
    await offline(argv, f"copying {file}", progress=progress, cwd=disks.directory)
    compared = [disks.qemu_img, "compare", "-p", "-U", file, str(target)]
    await offline(compared, f"comparing {file}", progress=progress, cwd=disks.directory)
    return target


async def _increment(
    disks: Disks, history: History, what: tuple[str, str], below: Path, folder: Path, old: Snapshot
) -> Path:
    """Copy the overlays between two snapshots, lowest first, each put on the one before."""
    disk, file = what
    chain = read_forest(disks, history, disk).chain(file)
    fresh = chain[: chain.index(old.files[disk])]
    for name in reversed(fresh):
        target = folder / Path(name).name
        await run_async(["cp", "--reflink=auto", "--sparse=always", "--", str(disks.path(name)), str(target)])
        os.chmod(target, 0o600)  # noqa: PTH101
        if os.geteuid() == 0:
            os.chown(target, 0, 0)
        named = ["-b", os.path.relpath(below, folder), "-F", "qcow2"]  # noqa: ASYNC240
        await run_async([disks.qemu_img, "rebase", "-u", "-f", "qcow2", *named, str(target)])
        below = target
    return below


def _keep_extras(disks: Disks, shot: Snapshot, folder: Path) -> None:
    from tinamou.snapshots import extras

    kept = extras.folder(disks, shot.number)
    for name in ("image.json", "id_ed25519", "id_ed25519.pub", "seed.iso"):
        if (disks.directory / name).exists():
            shutil.copy2(disks.directory / name, folder / name)
    if kept.is_dir():
        shutil.copytree(kept, folder, dirs_exist_ok=True)


async def verify(shelf: Shelf, backup: Backup, *, qemu_img: str = "qemu-img") -> None:
    """Read every file a backup rests on: present, what was written, sound. Raises ImageError naming the file."""
    for one in shelf.line(backup):
        for name, expected in one.sums.items():
            path = shelf.folder / name
            if not path.is_file():
                raise ImageError(f"backup {one.number} is damaged: {path} is missing", fix=_OTHER)
            if await asyncio.to_thread(_sum, path) != expected:
                raise ImageError(f"backup {one.number} is damaged: {path} is not what was written", fix=_OTHER)
    for name in backup.tops.values():
        read_chain(shelf.folder / name, trusted=[shelf.folder])
        await offline([qemu_img, "check", "-f", "qcow2", str(shelf.folder / name)], f"checking {name}")


_OTHER = "restore another backup, or make a new full one: tinamou backup create --full"


async def standalone(shelf: Shelf, disk: str, name: str, target: Path, *, progress: Progress = silent) -> None:
    """Write one disk of a backup as a file that rests on nothing. Raises ImageError."""
    argv = ["qemu-img", "convert", "-p", "-W", "-f", "qcow2", "-O", "qcow2", str(shelf.folder / name), str(target)]
    await offline(argv, f"restoring {disk}", progress=progress)


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ):
            digest.update(piece)
    return digest.hexdigest()


def _save(shelf: Shelf) -> Shelf:
    for path in _all_files(shelf.folder / f"{shelf.backups[-1].number:04}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
    data = {
        "machine": shelf.machine,
        "saved": time.time(),
        "record": dict(shelf.record),
        "backups": [dataclasses.asdict(one) for one in shelf.backups],
    }
    part = shelf.folder / (FILE + ".part")
    with part.open("w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(shelf.folder / FILE)
    return shelf
