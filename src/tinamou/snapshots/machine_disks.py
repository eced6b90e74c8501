"""One machine as the snapshot operations see it: its folder, its history, and QEMU's monitor while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tinamou.control import Session
from tinamou.errors import StateError
from tinamou.images.chain import Layer, read_chain, read_layer
from tinamou.images.progress import Progress, silent
from tinamou.snapshots.history import Disk, History
from tinamou.system.durable import PART
from tinamou.system.qcow2 import write_overlay

__all__ = ["Disks", "chain_of", "fresh_name", "locked", "record_disks", "write_overlay_part"]


@dataclass(frozen=True, slots=True)
class Disks:
    """``directory`` is the machine's folder, ``owner`` the uid its files belong to (None: the caller's).

    ``session`` is its QEMU's monitor, None while the machine is off; ``options`` are those of every overlay's file node, by
    disk; ``progress`` hears how far long operations are.
    """

    directory: Path
    owner: int | None = None
    session: Session | None = None
    options: Mapping[str, Mapping[str, object]] | None = None
    qemu_img: str = "qemu-img"
    progress: Progress = silent

    def path(self, name: str) -> Path:
        """A file of a disk: names are in the machine's folder."""
        return self.directory / name

    def name(self, path: str) -> str:
        """The shortest name for a path: without the folder when it is the machine's own."""
        return Path(path).name if Path(path).parent == self.directory else path

    def hand_over(self, path: Path) -> None:
        """Give a new file to the uid QEMU runs under."""
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other snapshot commands for the same machine out. Raises StateError at once when one is at work."""
    descriptor = os.open(directory / "snapshots.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = "another tinamou command is working on its disks"
            raise StateError(f"{directory.name}: its disks are being changed", why=why, fix="wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def chain_of(disks: Disks, file: str, floor: str = "") -> tuple[Layer, ...]:
    """The layers of one of the machine's files, read from the headers; ``floor`` may lie outside the folder."""
    return read_chain(disks.path(file), trusted=[Path(floor)] if floor else [])


def write_overlay_part(disks: Disks, file: str, below: str, format: str) -> Path:
    """Write a file of a disk over another one, of the same size, beside its place, for `put_in_place`; where it is now.

    Raises StateError over an encrypted one.
    """
    layer = read_layer(disks.path(below), format)
    if layer.header and layer.header.encryption:
        why = "what is written after the snapshot would go to an overlay that is not encrypted"
        raise StateError(f"{below} is encrypted and cannot be put under a snapshot", why=why)
    size = int(layer.header.size) if layer.header else layer.length
    part = disks.path(file + PART)
    part.unlink(missing_ok=True)
    write_overlay(part, size, below, layer.format)
    disks.hand_over(part)
    return part


def fresh_name(disk: str, number: int) -> str:
    """The file that takes what is written after snapshot ``number``."""
    return f"{disk}-{number}.qcow2"


def record_disks(history: History, found: Mapping[str, Disk]) -> History:
    """The history with disks added or removed since it was written; the tops it knows stay what they are."""
    kept = {name: history.disks.get(name, disk) for name, disk in found.items()}
    frozen = {name: disk for name, disk in history.disks.items() if history.frozen(name)}
    return replace(history, disks={**frozen, **kept})
