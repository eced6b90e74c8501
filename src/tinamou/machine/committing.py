"""A machine's disk made an image of this host's store, from which others are made."""

from __future__ import annotations

import shutil

from tinamou.control import connect_qmp
from tinamou.control.commands import status
from tinamou.errors import StateError
from tinamou.facts import ImageFacts, files
from tinamou.images.importing import import_image
from tinamou.images.offline import made
from tinamou.images.progress import Progress, silent
from tinamou.machine.cloning import frozen_disks
from tinamou.machine.disks import opened
from tinamou.machine.turns import turn
from tinamou.snapshots.backup_shelf import refuse_encrypted
from tinamou.snapshots.layers import read_forest
from tinamou.state import machines
from tinamou.state.folder import image_of
from tinamou.state.record import Record

__all__ = ["commit"]

_STAGING = f"commit{files.STAGING}"


async def commit(name: str, image: str, *, disk: str = "", progress: Progress = silent) -> ImageFacts:
    """Make an image of a disk of a machine that is off or paused, its first one unless another is named.

    What is known of the guest of the machine's own image (agent, ssh server, user, first-boot configuration) holds for the
    new one. Raises StateError for a running machine, and for one without such a disk; ImageError; there is no image then.
    """
    async with turn(machines.find(name), "commit") as record:
        await _refuse_running(record, image)
        staging = record.path / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        try:
            async with opened(record, "commit", progress=progress) as (disks, history):
                chosen = disk or next(iter(history.present), "")
                if chosen not in history.present:
                    has = ", ".join(history.present) or "none: its guest lives in memory"
                    raise StateError(f"{name} has no disk {disk or 'of its own'}", fix=f"it has {has}")
                async with frozen_disks(record, disks, history) as shot:
                    refuse_encrypted(disks, history, shot)
                    forest, flat = read_forest(disks, history, chosen), staging / "disk.qcow2"
                    layer = forest.layers[shot.files[chosen]]
                    words = [disks.qemu_img, "convert", "-p", "-U", "-f", layer.format, "-O", "qcow2", layer.path, str(flat)]
                    reads = forest.files(shot.files[chosen])
                    await made(words, f"copying {chosen}", reads, flat, mode=0o600, progress=progress)
            own = image_of(record)
            like = own if own.disk and chosen == "disk0" else None
            return await import_image(flat, image, arch=record.arch, like=like, progress=progress)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


async def _refuse_running(record: Record, image: str) -> None:
    """An image is made to be booted from: its file systems are to be whole, or the user to have chosen the moment."""
    if not record.running:
        return
    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        now = await status(session)
    if now.running:
        why = "what its guest has not written yet would be missing from the image"
        fix = f"tinamou stop {record.name} first; tinamou pause {record.name} takes the disk as after a power cut"
        raise StateError(f"{record.name} runs, and {image} is not made of its disk", why=why, fix=fix)
