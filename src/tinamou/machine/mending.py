"""Imported Linux guests whose disk was on another bus: looked at, and mended where they would not find it on virtio.

The guest mends itself: its disk lies in a throw-away machine without a network, whose own guest runs in memory, calls the
programs of the system on the disk, and writes to a layer. Nothing of a disk from elsewhere is run or mounted on the host.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase

from tinamou.convert.assemble import Converted, Placed
from tinamou.convert.result import RANKS, Note
from tinamou.digest import file_digest, sha256
from tinamou.errors import TinamouError
from tinamou.facts.image import ImageFacts
from tinamou.images import layers, mender
from tinamou.images.progress import Progress, silent
from tinamou.images.resolve import resolve
from tinamou.machine.facade import AsyncMachine
from tinamou.system.loop_thread import in_thread
from tinamou.system.qcow2 import write_overlay

__all__ = ["mend", "mend_imported"]

_SECONDS = 3600.0
"""For all initrds of a guest, where no CPU helps QEMU."""
_MOST_NOTES = 100
_LONGEST = 300
"""Characters of each part of a note: the words are a guest's."""


async def mend_imported(converted: Converted, *, arch: str, progress: Progress = silent) -> None:
    """Look at a machine's imported image, have it mended, and note what was done.

    Only a disk that sat on another bus than it will is looked at. What goes wrong is a note: the import holds without this.
    """
    image = next((one for one in converted.disks if one.field == "image"), None)
    if image is None or image.disk.cdrom or converted.machine.get("os") or not _moved(image):
        return
    name, arch = converted.machine["image"], converted.machine.get("arch", arch)
    others = {
        one.number: str(converted.machine["disk"][int(one.field[len("disk[") : one.field.index("]")])]["path"])
        for one in converted.disks
        if one is not image and not one.disk.cdrom
    }
    try:
        known = _known(name, await in_thread(resolve, name, arch))
        notes = [known] if known else await mend(name, arch, others, image.number, progress=progress)
    except TinamouError as error:
        why = f"{error.what}{f': {error.why}' if error.why else ''}"
        fix = "a guest whose initrd lacks virtio_blk, or whose fstab names /dev/sda, has to be told before it is converted"
        notes = [Note("check", f"image {name}", "", f"it was not looked at for what keeps it from starting: {why}", fix)]
    converted.notes += notes
    converted.notes.sort(key=lambda note: RANKS.index(note.rank))


def _known(name: str, image: ImageFacts) -> Note | None:
    """What is known of an imported disk without a machine that looks at it; None where one has to."""
    if image.windows and "viostor" not in image.drivers:
        why = "it would be started from virtio, for which it has no driver: it would stop with 0x7B"
        fix = f"tinamou image inject {name} NEWNAME --drivers virtio-win.iso, and name that; or say os, for SATA"
        return Note("check", f"image {name}", image.windows, why, fix)
    if image.windows:
        return Note("done", f"image {name}", image.windows, "it has the drivers of virtio")
    if not image.boots:
        return Note("done", f"image {name}", "", "nothing on it starts a machine: there is nothing to be mended")
    return None


def _moved(placed: Placed) -> bool:
    """Whether a disk sits on another bus than it did; an image is on virtio, whatever its interface was."""
    return bool(placed.disk.moved or placed.disk.options.get("interface"))


async def mend(
    name: str, arch: str, others: Mapping[int, str], number: int = 0, *, progress: Progress = silent
) -> list[Note]:
    """Mend an image of the store for a virtio disk; notes say what was changed, what could not be, or that all is well.

    It was the machine's disk of that number; ``others`` are its further disks by theirs, which are only read. A mended image
    rests on what it was: a layer is filed over it, and the name stands for that from then on. Raises GuestError, ImageError;
    the image is what it was then.
    """
    image = await in_thread(resolve, name, arch)
    folder = layers.folder_of(name, arch)
    first = sha256(Path(image.disk).parent.name.encode()).hexdigest()[:16]
    below = await in_thread(layers.add_base, name, first, image)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        layer = work / "disk.qcow2"
        write_overlay(layer, int(below.size), below.disk, "qcow2")
        notes = _notes(name, await _mended(layer, arch, others, number, progress))
        if any(note.rank == "changed" for note in notes):
            await in_thread(_file, name, layer, below)
    finally:
        await in_thread(shutil.rmtree, work, True)
    reason = "it was looked at: nothing in it names another bus, and its initrd has the drivers of virtio"
    return notes or [Note("done", f"image {name}", "", reason)]


async def _mended(layer: Path, arch: str, others: Mapping[int, str], number: int, progress: Progress) -> str:
    """What the mending guest says of a layer, which it has changed by then."""
    progress("looking at the disk in a machine of its own", None)
    files = {one: {"path": path, "readonly": True} for one, path in others.items()} | {number: {"path": str(layer)}}
    empty = {"size": "1M"}  # a disk that is made with the machine has its place
    disks = [files.get(one, empty) for one in range(max(files) + 1)]
    machine = AsyncMachine("mender", name=f"mend-{secrets.token_hex(4)}", arch=arch, memory="1G", net=[], disk=disks)
    async with machine:
        words = ["sh", "-c", mender.script("find"), "find", ascii_lowercase[number]]
        done = await machine.run(words, input=mender.script("mend").encode(), timeout=_SECONDS)
    return done.stdout.decode(errors="replace")


def _file(name: str, layer: Path, below: ImageFacts) -> None:
    key = file_digest(layer)[:16]
    with layers.filed(name, key, below) as target:
        layer.rename(target)
    layers.point(name, below.arch, key)


def _notes(name: str, said: str) -> list[Note]:
    """Notes of a guest's lines, as far as they are some."""
    found = []
    for line in said.splitlines()[:_MOST_NOTES]:
        rank, *words = [word[:_LONGEST] for word in line.split("\t")]
        if rank in RANKS and len(words) == 4:
            where, value, reason, fix = words
            found.append(Note(rank, f"image {name} {where}", value, reason, fix))
    return found
