"""Listing a folder of a FAT12, FAT16 or FAT32 volume inside a disk (source: Microsoft FAT specification, 2005)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from tinamou.images.blocks import Blocks

__all__ = ["list_folder"]

_MAX_FOLDER = 1 << 17
"""Bytes: the folder of boot loaders, and those it lies in, are far smaller."""
_LONGEST_NAME = 255
_FOLDER, _LONG_NAME, _VOLUME = 0x10, 0x0F, 0x08


def list_folder(blocks: Blocks, start: int, path: Sequence[str]) -> frozenset[str]:
    """The names in ``path``, upper case, of the volume ``start`` bytes into the disk; empty where it is not FAT."""
    volume = _Volume.open(blocks, start)
    if volume is None:
        return frozenset()
    data = volume.root()
    for part in path:
        cluster = next((first for name, folder, first in _entries(data) if folder and name == part.upper()), 0)
        if not cluster:
            return frozenset()
        data = volume.chain(cluster)
    return frozenset(name for name, _, _ in _entries(data))


class _Volume:
    """Where the parts of one FAT volume lie, in bytes from the start of the disk."""

    def __init__(self, blocks: Blocks, start: int, sector: bytes) -> None:
        width, self._per_cluster, reserved, fats, roots, small = struct.unpack_from("<HBHBHH", sector, 11)
        (fat_small, large, fat_large) = (*struct.unpack_from("<H", sector, 22), *struct.unpack_from("<II", sector, 32))
        fat_sectors = fat_small or fat_large
        self._blocks = blocks
        self._fat = start + reserved * width
        self._root = self._fat + fats * fat_sectors * width
        self._root_bytes = min(roots * 32, _MAX_FOLDER)
        self._data = self._root + -(-roots * 32 // width) * width
        self._cluster_bytes = self._per_cluster * width
        clusters = ((small or large) * width - (self._data - start)) // self._cluster_bytes
        self._bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
        self._root_cluster = struct.unpack_from("<I", sector, 44)[0] if self._bits == 32 else 0

    @classmethod
    def open(cls, blocks: Blocks, start: int) -> _Volume | None:
        sector = blocks.read(start, 512)
        if len(sector) < 512 or sector[510:] != b"\x55\xaa":
            return None
        width, per_cluster, reserved, fats = struct.unpack_from("<HBHB", sector, 11)
        possible = width in (512, 1024, 2048, 4096) and per_cluster and not per_cluster & (per_cluster - 1)
        return cls(blocks, start, sector) if possible and reserved and 1 <= fats <= 4 else None

    def root(self) -> bytes:
        return self.chain(self._root_cluster) if self._bits == 32 else self._blocks.read(self._root, self._root_bytes)

    def chain(self, cluster: int) -> bytes:
        pieces = []
        last = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self._bits]
        for _ in range(-(-_MAX_FOLDER // self._cluster_bytes)):
            if not 2 <= cluster < last:
                break
            pieces.append(self._blocks.read(self._data + (cluster - 2) * self._cluster_bytes, self._cluster_bytes))
            cluster = self._next(cluster)
        return b"".join(pieces)

    def _next(self, cluster: int) -> int:
        at = self._fat + cluster * self._bits // 8
        word = int.from_bytes(self._blocks.read(at, 4), "little")
        if self._bits == 12:
            return (word >> 4 if cluster & 1 else word) & 0xFFF
        return word & (0xFFFF if self._bits == 16 else 0x0FFFFFFF)


def _entries(data: bytes) -> Iterator[tuple[str, bool, int]]:
    """Name (upper case), whether it is a folder, first cluster of every live entry."""
    long = ""
    for at in range(0, len(data) - 31, 32):
        entry = data[at : at + 32]
        if entry[0] == 0:
            return
        if entry[0] == 0xE5:
            long = ""
        elif entry[11] == _LONG_NAME:
            piece = (entry[1:11] + entry[14:26] + entry[28:32]).decode("utf-16-le", "replace")
            long = (piece.split("\0", 1)[0] + ("" if entry[0] & 0x40 else long))[:_LONGEST_NAME]
        elif not entry[11] & _VOLUME:
            cluster = struct.unpack_from("<H", entry, 20)[0] << 16 | struct.unpack_from("<H", entry, 26)[0]
            yield (long or _short(entry)).upper(), bool(entry[11] & _FOLDER), cluster
            long = ""


def _short(entry: bytes) -> str:
    name = entry[:8].decode("latin-1").rstrip()
    extension = entry[8:11].decode("latin-1").rstrip()
    return f"{name}.{extension}" if extension else name
