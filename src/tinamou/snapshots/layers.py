"""Which files of a machine's disks rest on which, read from their headers, and which of them anybody still needs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.chain import Layer, read_below, read_layer
from tinamou.late import dataclass
from tinamou.snapshots.history import History
from tinamou.snapshots.machine_disks import Disks

__all__ = ["Forest", "named_below", "own_files", "read_forest"]

_OWN = re.compile(r"(disk\d+)(?:-\d+)?\.(?:qcow2|raw)")


@dataclass(frozen=True)
class Forest:
    """All files of one disk: ``layers`` by name, ``below`` what each rests on (empty: nothing).

    Names with a slash are files outside the machine's folder, which are never rewritten or removed: the floor, and what a
    fork's disk rests on.
    """

    disk: str
    layers: Mapping[str, Layer]
    below: Mapping[str, str]

    def above(self, name: str) -> tuple[str, ...]:
        """The files that rest directly on this one."""
        return tuple(upper for upper, lower in self.below.items() if lower == name)

    def chain(self, top: str) -> tuple[str, ...]:
        """A file and everything below it, top first. Raises ImageError for a loop or a file that is missing."""
        chain = [top]
        while lower := self.below.get(chain[-1], ""):
            if lower in chain:
                raise ImageError(f"the chain of {top} is a loop", why=f"{chain[-1]} leads back to {lower}")
            chain.append(lower)
        if chain[-1] not in self.layers:
            raise ImageError(f"a file of {self.disk} is missing: {chain[-1]}", fix="put it back, or restore a backup")
        return tuple(chain)

    def files(self, top: str) -> list[str]:
        """All that is opened where a file is read through; of formats that keep data beside them, their whole folder."""
        layers = [self.layers[name] for name in self.chain(top)]
        return [one.path if one.format in ("qcow2", "raw") else str(Path(one.path).parent) for one in layers]

    def needed(self, history: History) -> frozenset[str]:
        """The files the present state or a snapshot reads through."""
        return frozenset(name for root in self.named(history) for name in self.chain(root))

    def named(self, history: History) -> frozenset[str]:
        """The files that are the present state or a snapshot themselves."""
        entry = history.disks[self.disk]
        return history.frozen(self.disk) | (frozenset() if entry.gone else {entry.top})


def own_files(disks: Disks, disk: str) -> list[str]:
    """The names of a disk's files in the machine's folder."""
    names = os.listdir(disks.directory)  # noqa: PTH208
    return [name for name in names if (match := _OWN.fullmatch(name)) and match[1] == disk]


def read_forest(disks: Disks, history: History, disk: str) -> Forest:
    """Read the headers of every file of one disk: those in the machine's folder and what they rest on. Raises ImageError."""
    entry = history.disks[disk]
    known = {*own_files(disks, disk), entry.top, *history.frozen(disk)}
    formats = {entry.top: entry.format, entry.floor: entry.floor_format}
    layers = {name: read_layer(disks.path(name), formats.get(name, "qcow2")) for name in sorted(known)}
    if entry.floor not in layers:
        layers[entry.floor] = read_layer(disks.path(entry.floor), entry.floor_format)
    floor = layers[entry.floor]
    if floor.header and floor.header.backing_file:
        why = f"it is the lowest file of {disk}: another program changed its header"
        raise ImageError(
            f"{floor.path} names a file behind it, {floor.header.backing_file}", why=why, fix="restore a backup"
        )
    below: dict[str, str] = {}
    unread = set(layers) - {entry.floor}
    while unread:
        name = unread.pop()
        if not (lower := _below(disks, layers[name])):
            continue
        below[name] = lower
        if "/" in lower and lower not in layers:
            layers[lower] = read_below(layers[name])  # between a fork's own files and its floor: a checkpoint's
            unread.add(lower)
    return Forest(disk, layers, below)


def _below(disks: Disks, layer: Layer) -> str:
    if layer.header is None or not layer.header.backing_file:
        return ""
    return disks.name(named_below(layer))


def named_below(layer: Layer) -> str:
    """The path of the file below one that has a backing file, as its header says."""
    name = layer.header.backing_file if layer.header else ""
    return name if name.startswith("/") else str(Path(layer.path).parent / name)
