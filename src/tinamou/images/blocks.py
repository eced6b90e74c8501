"""Reading a guest's disk out of an image file, without starting QEMU where the format allows it.

A qcow2 file nobody vouches for is read here by memory-safe code with bounds checks; formats that need QEMU's own drivers
go through qemu-img under limits of time and memory.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Protocol

from tinamou.errors import ImageError
from tinamou.system.codecs import CodecError, decompress
from tinamou.system.exec import CommandError, TimeoutExpired, limited, run
from tinamou.system.qcow2 import Header

__all__ = ["Blocks", "ForeignBlocks", "Qcow2Blocks", "RawBlocks", "Unreadable", "qemu_img_limited"]

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62


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
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size: int = os.lseek(self._file, 0, os.SEEK_END)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file."""
        return os.pread(self._file, max(0, min(length, self.size - offset)), offset) if offset >= 0 else b""


class Qcow2Blocks:
    """A qcow2 file over whatever ``backing`` holds; compressed clusters included."""

    def __init__(self, path: str, header: Header, backing: Blocks | None) -> None:
        self.size: int = int(header.size)
        self._file = RawBlocks(path)
        self._path, self._header, self._backing = path, header, backing
        if header.encryption or header.data_file is not None or header.extended_l2:
            raise Unreadable(path)
        self._l1 = self._table(header.l1_offset, header.l1_size)
        self._l2: dict[int, tuple[int, ...]] = {}

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

    def _table(self, offset: int, entries: int) -> tuple[int, ...]:
        data = self._file.read(offset, entries * 8)
        if len(data) != entries * 8:
            raise ImageError(f"{self._path} is truncated", why=f"a table at byte {offset} lies outside the file")
        return struct.unpack(f">{entries}Q", data)

    def _entry(self, cluster: int) -> int:
        per_table = self._header.cluster_size // 8
        table = self._l1[cluster // per_table] & _OFFSET
        if not table:
            return 0
        if table not in self._l2:
            self._l2[table] = self._table(table, per_table)
        return self._l2[table][cluster % per_table]

    def _cluster(self, number: int, inside: int, count: int) -> bytes:
        entry = self._entry(number)
        if entry & _COMPRESSED:
            return self._inflate(entry)[inside : inside + count]
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
        try:
            data = decompress(packed) if self._header.compression == "zstd" else self._deflated(packed)
        except (zlib.error, CodecError) as error:
            raise ImageError(f"{self._path} is corrupt", why=f"a compressed cluster at byte {offset}: {error}") from error
        return data.ljust(self._header.cluster_size, b"\0")

    def _deflated(self, packed: bytes) -> bytes:
        return zlib.decompressobj(-12).decompress(packed, self._header.cluster_size)


class ForeignBlocks:
    """Any other format: ranges are read by qemu-img and kept in pieces of 1 MiB."""

    _PIECE = 1 << 20

    def __init__(self, path: str, format: str, size: int, qemu_img: str) -> None:
        self.size: int = size
        self._path, self._format, self._qemu_img = path, format, qemu_img
        self._pieces: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the guest's disk."""
        end = min(offset + length, self.size)
        first, last = offset // self._PIECE, -(-end // self._PIECE)
        data = b"".join(self._piece(number) for number in range(first, last))
        return data[offset - first * self._PIECE :][: max(0, end - offset)]

    def _piece(self, number: int) -> bytes:
        if number not in self._pieces:
            self._pieces[number] = self._extract(number * self._PIECE)
        return self._pieces[number]

    def _extract(self, offset: int) -> bytes:
        with tempfile.TemporaryDirectory(prefix="tinamou-") as folder:
            target = Path(folder) / "piece"
            file = {"driver": self._format, "file": {"driver": "file", "filename": self._path}}
            size = min(self._PIECE, self.size - offset)
            source = "json:" + json.dumps({"driver": "raw", "offset": offset, "size": size, "file": file})
            qemu_img_limited(self._path, [self._qemu_img, "convert", "-O", "raw", source, str(target)])
            return target.read_bytes()


def qemu_img_limited(path: str, argv: list[str]) -> str:
    """Run qemu-img on a file nobody vouches for: at most 10 s of CPU, 20 s in all, 4 GiB of addresses. Raises ImageError.

    Most of the addresses are the stacks of its worker threads; the C library is kept from reserving more for each.
    """
    try:
        bounded = limited(argv, cpu_seconds=10, memory_bytes=4 << 30)
        return run(bounded, timeout=20, environment={"MALLOC_ARENA_MAX": "1"})
    except CommandError as error:
        reason = error.stderr.strip().splitlines()[-1:] or [f"{argv[0]} ended with status {error.status}"]
        raise ImageError(f"{path} cannot be read as an image", why=reason[0]) from error
    except TimeoutExpired as error:
        raise ImageError(f"{path} cannot be read as an image", why="qemu-img did not finish within 20 seconds") from error
