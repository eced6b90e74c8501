"""Reading a guest's disk out of an image file, without starting QEMU where the format allows it.

A qcow2 file nobody vouches for is read here by memory-safe code with bounds checks; formats that need QEMU's own drivers
go through qemu-img in a process without rights.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from tinamou.errors import ImageError
from tinamou.images.qemu_img import extract
from tinamou.system.codecs import CodecError, decompress
from tinamou.system.qcow2 import Header

__all__ = ["Blocks", "ForeignBlocks", "Qcow2Blocks", "RawBlocks", "Unreadable"]

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_MOST_UNPACKED = 64 << 20
"""Bytes unpacked or extracted in all; partition tables and the folders of boot loaders are in a fraction of that."""
_KEPT = 4


class Unreadable(Exception):  # noqa: N818
    """The image's data cannot be read by this reader (encrypted, an exotic feature); nothing is wrong with the image."""


class Blocks(Protocol):
    """The guest's view of a disk: ``size`` bytes, readable anywhere; what lies beyond the end reads as nothing."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; shorter at the end of the disk. Raises ImageError, Unreadable."""
        ...


class RawBlocks:
    """A raw file or block device."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.size: int = os.lseek(self._file, 0, os.SEEK_END)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file."""
        return os.pread(self._file, min(length, self.size - offset), offset) if 0 <= offset < self.size else b""


class Qcow2Blocks:
    """A qcow2 file over whatever ``backing`` holds; compressed clusters included."""

    def __init__(self, path: str, header: Header, backing: Blocks | None) -> None:
        self.size: int = int(header.size)
        self._file = RawBlocks(path)
        self._path, self._header, self._backing = path, header, backing
        if header.encryption or header.data_file is not None or header.extended_l2:
            raise Unreadable(path)
        self._unpacked = _Pieces(path)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the guest's disk, cluster by cluster."""
        pieces = []
        end = min(offset + length, self.size)
        while offset < end:
            inside = offset % self._header.cluster_size
            count = min(self._header.cluster_size - inside, end - offset)
            pieces.append(self._cluster(offset // self._header.cluster_size, inside, count))
            offset += count
        return b"".join(pieces)

    def _word(self, offset: int) -> int:
        data = self._file.read(offset, 8)
        if len(data) != 8:
            raise ImageError(f"{self._path} is truncated", why=f"a table at byte {offset} lies outside the file")
        return int.from_bytes(data, "big")

    def _entry(self, cluster: int) -> int:
        table, number = divmod(cluster, self._header.cluster_size // 8)
        at = self._word(self._header.l1_offset + table * 8) & _OFFSET
        return self._word(at + number * 8) if at else 0

    def _cluster(self, number: int, inside: int, count: int) -> bytes:
        entry = self._entry(number)
        if entry & _COMPRESSED:
            return self._unpacked.piece(entry, self._header.cluster_size, self._inflate)[inside : inside + count]
        if entry & 1 and self._header.version == 3:
            return bytes(count)
        if entry & _OFFSET:
            data = self._file.read((entry & _OFFSET) + inside, count)
            if len(data) != count and (entry & _OFFSET) >= self._file.size:
                raise ImageError(f"{self._path} is truncated", why=f"cluster {number} lies outside the file")
            return data.ljust(count, b"\0")
        below = self._backing.read(number * self._header.cluster_size + inside, count) if self._backing else b""
        return below.ljust(count, b"\0")

    def _inflate(self, entry: int) -> bytes:
        """One compressed cluster (source: qcow2.rst, *Compressed Clusters Descriptor*)."""
        split = 62 - (self._header.cluster_bits - 8)
        offset = entry & ((1 << split) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> split
        packed = self._file.read(offset, (sectors + 1) * 512 - offset % 512)
        size = self._header.cluster_size
        try:
            data = decompress(packed, size) if self._header.compression == "zstd" else _deflated(packed, size)
        except (zlib.error, CodecError) as error:
            raise ImageError(f"{self._path} is corrupt", why=f"a compressed cluster at byte {offset}: {error}") from error
        if len(data) != size:
            why = f"a compressed cluster at byte {offset} holds {len(data)} bytes, not {size}"
            raise ImageError(f"{self._path} is corrupt", why=why)
        return data


def _deflated(packed: bytes, size: int) -> bytes:
    return zlib.decompressobj(-12).decompress(packed, size)


class ForeignBlocks:
    """Any other format: ranges are read by qemu-img and kept in pieces of 1 MiB."""

    _PIECE = 1 << 20

    def __init__(self, path: str, format: str, size: int, others: Sequence[str]) -> None:
        self.size: int = size
        self._path, self._format, self._others = path, format, others
        self._pieces = _Pieces(path)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the guest's disk."""
        end = min(offset + length, self.size)
        first, last = offset // self._PIECE, -(-end // self._PIECE)
        data = b"".join(self._pieces.piece(number, self._PIECE, self._extract) for number in range(first, last))
        return data[offset - first * self._PIECE :][: max(0, end - offset)]

    def _extract(self, number: int) -> bytes:
        offset = number * self._PIECE
        place = (offset, min(self._PIECE, self.size - offset))
        return extract(self._path, self._format, self._others, place)


class _Pieces:
    """The pieces made last, by number; in all so many bytes are made of one image, and no more."""

    def __init__(self, path: str) -> None:
        self._path, self._left = path, _MOST_UNPACKED
        self._made: dict[int, bytes] = {}

    def piece(self, number: int, size: int, make: Callable[[int], bytes]) -> bytes:
        if number not in self._made:
            self._left -= size
            if self._left < 0:
                why = f"its partition tables and boot folders are strewn over more than {_MOST_UNPACKED >> 20} MiB"
                raise ImageError(
                    f"{self._path} does not tell how it boots", why=why, fix="convert it to raw, and look again"
                )
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[number] = make(number)
        return self._made[number]
