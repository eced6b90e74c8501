"""One machine as the snapshot operations see it: its folder, its history, and QEMU's monitor while it runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from tinamou.control import Session
from tinamou.errors import StateError
from tinamou.images.chain import Layer, read_chain, read_layer
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass, field, replace
from tinamou.snapshots.graph import BlockGraph
from tinamou.snapshots.history import DiskEntry, History
from tinamou.state.folder import image_of
from tinamou.state.record import Record
from tinamou.system.durable import PART
from tinamou.system.qcow2 import write_overlay

__all__ = [
    "Disks",
    "chain_of",
    "crypto_header",
    "encrypted",
    "encryption",
    "fresh_name",
    "listed_disks",
    "record_disks",
    "write_overlay_part",
]


@dataclass(frozen=True)
class Disks:
    """``directory`` is the machine's folder, ``owner`` the uid its files belong to (None: the caller's).

    ``session`` is its QEMU's monitor, None while the machine is off; ``options`` are those of every overlay's file node, by
    disk; ``keys`` are the files with the passphrases of encrypted ones. ``graph`` is QEMU's
    as it was when the disks were locked, for what is done first. ``progress`` hears how far long operations are.
    """

    directory: Path
    owner: int | None = None
    session: Session | None = None
    options: Mapping[str, Mapping[str, object]] | None = None
    qemu_img: str = "qemu-img"
    keys: Mapping[str, str] = field(default_factory=dict)
    graph: BlockGraph | None = None
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


def chain_of(disks: Disks, file: str, floor: str = "") -> tuple[Layer, ...]:
    """The layers of one of the machine's files, read from the headers; ``floor`` may lie outside the folder."""
    return read_chain(disks.path(file), trusted=[Path(floor)] if floor else [])


def write_overlay_part(disks: Disks, file: str, below: str, format: str) -> Path:
    """Write a file of a disk over another one, of the same size, beside its place, for `put_in_place`; where it is now.

    Over an encrypted one it is encrypted with the same key. Raises StateError over one of qcow's old encryption.
    """
    layer = read_layer(disks.path(below), format)
    if layer.header and layer.header.encryption not in ("", "luks"):
        why = "what is written after the snapshot would go to an overlay that is not encrypted"
        raise StateError(f"{below} is encrypted in an old way and cannot be put under a snapshot", why=why)
    size = int(layer.header.size) if layer.header else layer.length
    part = disks.path(file + PART)
    part.unlink(missing_ok=True)
    write_overlay(part, size, below, layer.format, crypto=crypto_header(layer))
    disks.hand_over(part)
    return part


def crypto_header(layer: Layer) -> bytes:
    """The LUKS header of a file, empty for one that is not encrypted. Raises StateError for one that is cut off."""
    offset, length = layer.header.crypto if layer.header else (0, 0)
    with Path(layer.path).open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise StateError(f"{layer.path} is truncated", why=f"its encryption header should have {length} bytes")
    return data


def encrypted(layer: Layer) -> bool:
    """Whether a file is encrypted."""
    return bool(layer.header and layer.header.encryption)


def encryption(disk: str, layer: Layer) -> dict[str, object]:
    """What QEMU has to be told to open an encrypted file of a disk; nothing for another."""
    return {"encrypt": {"format": "luks", "key-secret": f"{disk}-key"}} if encrypted(layer) else {}


def listed_disks(record: Record) -> frozenset[str]:
    """The disks of a machine's description beside its image's, by name."""
    from tinamou.parts.disk import numbered
    from tinamou.spec import load_spec

    first = 1 if image_of(record).disk else 0
    return frozenset(f"disk{number}" for number, _ in numbered(load_spec(record.spec).disk, first))


def fresh_name(disk: str, number: int) -> str:
    """The file that takes what is written after snapshot ``number``."""
    return f"{disk}-{number}.qcow2"


def record_disks(history: History, found: Mapping[str, DiskEntry], listed: Collection[str]) -> History:
    """The history with disks added or removed since it was written; the tops it knows stay what they are.

    ``listed`` are the disks of the machine's description: one that its guest pushed out is not gone for that.
    """
    kept = {name: history.present.get(name, disk) for name, disk in found.items()}
    others = {name: disk for name, disk in history.disks.items() if name in listed or history.frozen(name)}
    return replace(history, disks={**others, **kept})
