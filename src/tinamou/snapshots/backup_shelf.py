"""The list of a machine's backups in a folder, what each consists of, and what else is kept with it.

::

    FOLDER/backup.json              what there is; replaced whole
    FOLDER/0001/disk0.qcow2         a full backup: everything the disk reads as, on its own
    FOLDER/0002/disk0-7.qcow2       an incremental one: the files written since, each over the one before
    FOLDER/0001/image.json, vars.fd what else the machine needs to start
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinamou import late
from tinamou.digest import file_digest
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.images.chain import MAX_DEPTH
from tinamou.late import dataclass, field
from tinamou.snapshots import extras
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks, encrypted
from tinamou.system.durable import put_in_place, sync_files, sync_folder

__all__ = [
    "Backup",
    "Shelf",
    "files_in",
    "give_extras",
    "keep_extras",
    "old_base",
    "old_snapshot",
    "read_shelf",
    "refuse_encrypted",
    "save_shelf",
    "sums_of",
]

FILE = "backup.json"


@dataclass(frozen=True)
class Backup:
    """One backup. ``tops`` says which file each disk is read through, ``sums`` the SHA-256 of every file it added.

    ``snapshot`` is the number of the machine's snapshot it was copied from; ``parent`` the backup it builds on, 0 for a full
    one; ``record`` the machine's entry as it was then, plain data. File names are relative to the shelf. Where the data went
    to NBD exports, ``tops`` are their URLs, and ``remote`` says for each how many bytes it holds and their SHA-256.
    """

    number: int
    kind: str
    created: float
    snapshot: int
    parent: int
    tops: Mapping[str, str]
    sums: Mapping[str, str]
    record: Mapping[str, object]
    size: int = 0
    quiesced: bool = False
    remote: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shelf:
    """A folder of backups of one machine."""

    folder: Path
    machine: str = ""
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
        return Shelf(folder, data["machine"], tuple(Backup(**one) for one in data["backups"]))
    except FileNotFoundError:
        return Shelf(folder)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"the list of backups in {folder} is damaged", why=str(error)) from error


def old_base(disks: Disks, history: History, shot: Snapshot, shelf: Shelf) -> Backup | None:
    """The newest backup whose snapshot every disk of the new one still rests on, None where a full one is needed.

    It is needed, too, where a disk would have to be read through more files than are followed.
    """
    for backup in reversed(shelf.backups):
        old = next((one for one in history.snapshots if one.number == backup.snapshot), None)
        fresh = (
            [_since(disks, history, disk, shot.files[disk], old.files.get(disk, "")) for disk in shot.files] if old else [-1]
        )
        if min(fresh, default=0) >= 0:
            return backup if _files(shelf, backup) + sum(fresh) < MAX_DEPTH else None
    return None


def _since(disks: Disks, history: History, disk: str, file: str, old: str) -> int:
    """How many files of a disk hold what was written since ``old``; -1 where ``file`` does not rest on that."""
    chain = read_forest(disks, history, disk).chain(file)
    return chain.index(old) if old in chain else -1


def _files(shelf: Shelf, backup: Backup) -> int:
    """The files of all disks that a backup rests on, which are more than one of its disks is read through."""
    return sum(name.endswith(".qcow2") for one in shelf.line(backup) for name in one.sums)


def old_snapshot(history: History, backup: Backup) -> Snapshot:
    """The machine's snapshot a backup was copied from."""
    return history.snapshot(str(backup.snapshot))


def refuse_encrypted(disks: Disks, history: History, shot: Snapshot) -> None:
    """Raise StateError for an encrypted disk: a backup is read by qemu-img without its key, it would be plain text."""
    for disk in shot.files:
        if any(encrypted(layer) for layer in read_forest(disks, history, disk).layers.values()):
            why = "a backup would hold what it reads as, not encrypted"
            raise StateError(f"{disk} is encrypted and cannot be backed up", why=why, fix="back up from inside the guest")


def keep_extras(disks: Disks, shot: Snapshot, folder: Path) -> None:
    """Copy what the machine needs beside its disks: image, keys, seed, UEFI variables, TPM. Raises StateError."""
    kept = extras.folder(disks, shot.number)
    extras.copy_files(disks.directory, folder, set(extras.FILES) - {files.UEFI_VARS}, extras.owners_of(disks.owner))
    _copy(kept, folder, extras.owners_of(None))


def give_extras(shelf: Shelf, backup: Backup, directory: Path) -> None:
    """Copy what is kept with a backup to a new machine's folder; it may lie where others write. Raises StateError."""
    _copy(shelf.folder / f"{backup.number:04}", directory, None)


def _copy(source: Path, target: Path, owners: Collection[int] | None) -> None:
    extras.copy_files(source, target, extras.FILES, owners)
    if (source / "tpm").is_dir():
        extras.copy_tpm(source, target, owners)


def files_in(folder: Path) -> list[Path]:
    """Every file below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sums_of(shelf: Path, folder: Path, known: Mapping[Path, str] = MappingProxyType({})) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by name below the shelf; ``known`` are those that were made already."""
    return {str(path.relative_to(shelf)): known.get(path) or file_digest(path) for path in files_in(folder)}


def save_shelf(shelf: Shelf) -> Shelf:
    """Replace the list, once what the newest backup added is on stable storage. Raises OSError."""
    if shelf.backups:
        folder = shelf.folder / f"{shelf.backups[-1].number:04}"
        sync_files(files_in(folder))
        sync_folder(folder)
    backups = [late.asdict(one) for one in shelf.backups]
    data = {"machine": shelf.machine, "saved": time.time(), "backups": backups}
    (shelf.folder / (FILE + ".part")).write_text(json.dumps(data, indent=1))
    put_in_place(shelf.folder, [FILE])
    return shelf
