"""Backups in a folder: each a full copy or what was written since the one before, with checksums, readable by qemu-img.

An incremental backup copies the overlays that were frozen since the last one: they hold exactly what was written. Why not
dirty bitmaps: docs/decisions/0041-backups-from-overlays.md.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tinamou import late
from tinamou.digest import file_digest
from tinamou.errors import ImageError
from tinamou.images.chain import read_chain
from tinamou.images.offline import made, offline, read_through
from tinamou.images.progress import Progress, silent
from tinamou.snapshots.backup_copy import Settling, copy_overlay
from tinamou.snapshots.backup_nbd import nbd_source, verify_nbd
from tinamou.snapshots.backup_shelf import (
    Backup,
    Shelf,
    files_in,
    keep_extras,
    old_base,
    old_snapshot,
    refuse_encrypted,
    save_shelf,
    sums_of,
)
from tinamou.snapshots.history import History, Snapshot
from tinamou.snapshots.layers import Forest, read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.loop_thread import dropped, in_thread

__all__ = ["copy_out", "standalone", "verify"]


async def copy_out(
    disks: Disks,
    history: History,
    shot: Snapshot,
    shelf: Shelf,
    record: Mapping[str, object],
    *,
    full: bool = False,
    progress: Progress = silent,
) -> Shelf:
    """Add a backup of a snapshot to the shelf; incremental when the last one's snapshot is still below it.

    ``record`` is the machine's entry, which a restored one starts from.

    Written beside the shelf's list first, which names it only when it is complete. Raises ImageError, StateError, OSError.
    """
    refuse_encrypted(disks, history, shot)
    number = max((one.number for one in shelf.backups), default=0) + 1
    last = None if full else old_base(disks, history, shot, shelf)
    folder = shelf.folder / f"{number:04}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        tops: dict[str, Path] = {}
        made_already: dict[Path, str] = {}
        for disk, file in shot.files.items():
            below = last.tops.get(disk) if last else None
            if below and last:
                copied = await _increment(
                    disks, history, (disk, file), shelf.folder / below, folder, old_snapshot(history, last)
                )
                made_already |= copied
                tops[disk] = next(reversed(copied), shelf.folder / below)
            else:
                target = tops[disk] = folder / f"{disk}.qcow2"
                made_already[target] = await _whole(disks, read_forest(disks, history, disk), file, target, progress)
        keep_extras(disks, shot, folder)
        sums = await asyncio.to_thread(sums_of, shelf.folder, folder, made_already)
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
        record=record,
        size=sum(path.stat().st_blocks * 512 for path in files_in(folder)),
        quiesced=shot.quiesced,
    )
    return save_shelf(late.replace(shelf, backups=(*shelf.backups, backup)))


async def _whole(disks: Disks, forest: Forest, name: str, target: Path, progress: Progress) -> str:
    """Copy all a file reads as, and compare it; the copy's SHA-256, which is made meanwhile.

    The file's format is said: a guest could have written the header of another into its raw disk. The disk is given the
    copy as it grows, and takes the rest while it is compared.
    """
    layer, reads = forest.layers[name], forest.files(name)
    file, settling = Path(layer.path).name, Settling(target, progress)
    argv = [disks.qemu_img, "convert", "-p", "-U", "-W", "-f", layer.format, "-O", "qcow2", layer.path, str(target)]
    compared = [disks.qemu_img, "compare", "-p", "-U", "-f", layer.format, "-F", "qcow2", layer.path, str(target)]
    try:
        await made(argv, f"copying {file}", reads, target, mode=0o600, progress=settling.hear)
        beside = [asyncio.ensure_future(one) for one in (asyncio.to_thread(file_digest, target), settling.settled())]
        try:
            await read_through(compared, f"comparing {file}", [*reads, str(target)], progress=progress)
            digest, _ = await asyncio.gather(*beside)
            return str(digest)
        finally:
            for one in beside:
                await dropped(one)
    finally:
        await settling.left()


async def _increment(
    disks: Disks, history: History, what: tuple[str, str], below: Path, folder: Path, old: Snapshot
) -> dict[Path, str]:
    """Copy the overlays between two snapshots, lowest first, each put on the one before; the SHA-256 of each copy."""
    disk, file = what
    chain = read_forest(disks, history, disk).chain(file)
    copied: dict[Path, str] = {}
    for name in reversed(chain[: chain.index(old.files[disk])]):
        target = folder / Path(name).name
        copied[target] = await in_thread(copy_overlay, disks.path(name), target, os.path.relpath(below, folder))  # noqa: ASYNC240
        below = target
    return copied


async def verify(shelf: Shelf, backup: Backup, *, qemu_img: str = "qemu-img") -> None:
    """Read every file a backup rests on: present, what was written, sound. Raises ImageError naming the file."""
    for one in shelf.line(backup):
        for name, expected in one.sums.items():
            path = shelf.folder / name
            if not path.is_file():
                raise ImageError(f"backup {one.number} is damaged: {path} is missing", fix=_OTHER)
            if await asyncio.to_thread(file_digest, path) != expected:
                raise ImageError(f"backup {one.number} is damaged: {path} is not what was written", fix=_OTHER)
    if backup.remote:
        await verify_nbd(backup.remote, qemu_img=qemu_img)
        return
    for name in backup.tops.values():
        reads = [layer.path for layer in read_chain(shelf.folder / name, trusted=[shelf.folder])]
        await read_through([qemu_img, "check", "-f", "qcow2", str(shelf.folder / name)], f"checking {name}", reads)


_OTHER = "restore another backup, or make a new full one: tinamou backup create --full"


async def standalone(shelf: Shelf, backup: Backup, disk: str, target: Path, *, progress: Progress = silent) -> None:
    """Write one disk of a backup as a file that rests on nothing. Raises ImageError."""
    name = backup.tops[disk]
    told = backup.remote.get(name)
    argv = ["qemu-img", "convert", "-p", "-W", "-O", "qcow2"]
    if told:
        await offline([*argv, nbd_source(name, told["size"]), str(target)], f"restoring {disk}", progress=progress)
        return
    reads = [layer.path for layer in read_chain(shelf.folder / name, trusted=[shelf.folder])]
    words = [*argv, "-f", "qcow2", str(shelf.folder / name), str(target)]
    await made(words, f"restoring {disk}", reads, target, progress=progress)
