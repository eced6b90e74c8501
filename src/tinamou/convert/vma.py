"""Reader of Proxmox' backups (VMA): the configuration in them, and their disks, block by block, every checksum checked.

::

    header 12 KiB + names and configurations │ extent: header of 512 bytes, 59 clusters │ extent │ …

An extent's header says of each cluster (64 KiB) whose it is, which, and which of its sixteen blocks are stored; the rest are
zeros. Source: pve-qemu's vma_spec.txt.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tinamou.convert import proxmox
from tinamou.convert.result import Draft
from tinamou.errors import ImageError, SpecError
from tinamou.late import dataclass
from tinamou.system.codecs import CodecError, unpacked
from tinamou.system.exec import CommandError, find_tool, piped

__all__ = ["Pieces", "is_backup", "read", "unpack"]

_MAGIC, _EXTENT = b"VMA\0", b"VMAE"
_PACKED = {b"\x28\xb5\x2f\xfd": "zst", b"\x1f\x8b": "gz", b"\x89LZO": "lzo"}
_HEADER, _EXTENT_HEADER = 12288, 512
_MOST_NAMES = 1 << 20
_BLOCK, _BLOCKS, _CLUSTERS = 4096, 16, 59
_CLUSTER = _BLOCK * _BLOCKS
_SLOTS = 256
_LARGEST = 1 << 44
_MAP = re.compile(r"^#qmdump#map:(\w+):([\w-]+):([^:]*):([^:]*):$", re.MULTILINE)


class _Stream(Protocol):
    """What is read from beginning to end."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at its end."""
        ...


class Pieces:
    """Pieces of bytes, read as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        found, self._left = self._left[:size], self._left[size:]
        return found


@dataclass(frozen=True)
class _Backup:
    """What the header says: identity, configurations by name, each device's slot with its name and size in bytes."""

    uuid: bytes
    configurations: dict[str, bytes]
    devices: dict[int, tuple[str, int]]


def is_backup(path: Path) -> bool:
    """Whether a file is one, packed or not."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_MAGIC):
        return True
    if not any(start.startswith(magic) for magic in _PACKED):
        return False
    if start == b"\x89LZO":
        return ".vma" in path.name
    try:
        with _opened(path) as stream:
            return stream.read(4) == _MAGIC
    except (OSError, EOFError, CodecError, zlib.error):
        return False


def read(path: Path) -> Draft:
    """The machine in a backup; its disks are members of the file. Raises SpecError, ImageError for one that is damaged."""
    with _guarded(path) as stream:
        backup = _header(stream, path)
    text = backup.configurations.get("qemu-server.conf", b"").decode("utf-8", "replace")
    if not text:
        raise SpecError(f"{path} has no machine in it", why="no qemu-server.conf is in the backup")
    draft = proxmox.read(_MAP.sub("", text))
    draft.source = "a Proxmox backup"
    sizes = dict(backup.devices.values())
    members = {key: (device, store) for key, device, store, _ in _MAP.findall(text)}
    draft.notes = [note for note in draft.notes if "storage.cfg" not in note.fix]
    for disk in list(draft.disks):
        device, store = members.get(disk.where, (f"drive-{disk.where}", ""))
        if device in sizes:
            disk.member, disk.file, disk.part = device, str(path.resolve()), (0, sizes[device])
            draft.done(disk.where, f"{device} {store}".strip(), f"{sizes[device]} bytes, from the backup")
        elif not disk.cdrom:
            draft.lost(disk.where, disk.file, "it is not in the backup", "add it as [[disk]]")
            draft.disks.remove(disk)
    for key, (device, store) in members.items():
        if all(disk.member != device for disk in draft.disks):
            draft.check(key, f"{device} {store}".strip(), "it is in the backup, and no disk here", "vma extract")
    return draft


def unpack(path: Path, folder: Path, names: set[str]) -> dict[str, Path]:
    """Some devices as sparse raw files in a folder, by name. Raises ImageError for a backup that is damaged or cut short."""
    with _guarded(path) as stream:
        backup = _header(stream, path)
        slots = {slot: (name, size) for slot, (name, size) in backup.devices.items() if name in names}
        files = {slot: folder / f"{number}.raw" for number, slot in enumerate(sorted(slots))}
        opened: dict[int, int] = {}
        try:
            for slot, file in files.items():
                opened[slot] = _empty(path, file, slots[slot][1])
            seen = {slot: _Seen(-(-size // _CLUSTER)) for slot, (_, size) in slots.items()}
            for slot, cluster, mask, data in _clusters(stream, path, backup):
                if slot in seen:
                    _put(path, opened[slot], slots[slot][1], seen[slot], (cluster, mask, data))
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
    for slot, known in seen.items():
        if known.left:
            why = f"{known.left} clusters of {slots[slot][0]} are not in it"
            raise ImageError(f"{path} is cut short", why=why, fix="fetch the backup again")
    return {slots[slot][0]: file for slot, file in files.items()}


class _Seen:
    """Which clusters of a disk were there: a bit each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bits = bytearray(-(-count // 8))
        self.left: int = count

    def first_time(self, cluster: int) -> bool:
        """Whether this is one of the disk's, and was not there before."""
        place, bit = cluster // 8, 1 << cluster % 8
        if cluster >= self._count or self._bits[place] & bit:
            return False
        self._bits[place] |= bit
        self.left -= 1
        return True


def _empty(path: Path, file: Path, size: int) -> int:
    try:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(opened, size)
    except OSError as error:
        why = f"{file}, {size} bytes: {error.strerror}"
        raise ImageError(f"{path} cannot be unpacked", why=why, fix="import it where there is room") from error
    return opened


def _put(path: Path, file: int, size: int, seen: _Seen, found: tuple[int, int, bytes]) -> None:
    cluster, mask, data = found
    if not seen.first_time(cluster):
        raise _damaged(path, f"cluster {cluster} is there twice, or beyond its disk")
    at, place = 0, cluster * _CLUSTER
    for block in range(_BLOCKS):
        if mask & 1 << block:
            start = place + block * _BLOCK
            if (piece := data[at : at + min(_BLOCK, max(0, size - start))]) and piece.strip(b"\0"):
                os.pwrite(file, piece, start)
            at += _BLOCK


@contextmanager
def _guarded(path: Path) -> Iterator[_Stream]:
    """The stream; what goes wrong with its packing is said as damage."""
    try:
        with _opened(path) as stream:
            yield stream
    except (EOFError, CodecError, CommandError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error)[:200]) from error


@contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        kind = next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), "")
        if kind == "lzo":
            if (tool := find_tool("lzop")) is None:
                raise SpecError(f"{path} is packed by LZO", why="lzop unpacks it, which is not here", fix="install lzop")
            with piped([tool, "-dc"], file) as output:
                yield output
        elif kind == "gz":
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        elif kind == "zst":
            yield Pieces(unpacked(file, "zstd"))
        else:
            yield file


def _damaged(path: Path, why: str) -> ImageError:
    return ImageError(f"{path} is damaged", why=why, fix="fetch the backup again")


def _exactly(stream: _Stream, size: int) -> bytes:
    pieces, left = [], size
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left:
        raise EOFError(f"it ends {left} bytes too soon")
    return b"".join(pieces)


def _header(stream: _Stream, path: Path) -> _Backup:
    head = _exactly(stream, _HEADER)
    version, uuid, _, digest, blobs, length, whole = struct.unpack_from(">I16sq16sIII", head, 4)
    if head[:4] != _MAGIC or version != 1:
        raise SpecError(f"{path} is no backup that is known here", why=f"its version is {version}")
    padding = whole - blobs - length  # to a whole sector
    if blobs < _HEADER or not 0 <= padding < _EXTENT_HEADER or length > _MOST_NAMES:
        raise _damaged(path, "its header has an impossible size")
    data = head + _exactly(stream, whole - _HEADER)
    if hashlib.md5(data[:32] + bytes(16) + data[48:], usedforsecurity=False).digest() != digest:
        raise _damaged(path, "its header has another checksum")

    def blob(at: int) -> bytes:
        if not 0 < at <= length - 2:
            raise _damaged(path, "a name lies outside its header")
        (size,) = struct.unpack_from("<H", data, blobs + at)
        return data[blobs + at + 2 : min(whole, blobs + at + 2 + size)]

    def name(at: int) -> str:
        return blob(at).rstrip(b"\0").decode("utf-8", "replace")

    numbers = struct.unpack_from(f">{2 * _SLOTS}I", data, 2044)
    configurations = {name(at): blob(of) for at, of in zip(numbers[:_SLOTS], numbers[_SLOTS:], strict=True) if at and of}
    devices = {}
    for slot in range(1, _SLOTS):
        at, _, size = struct.unpack_from(">IIQ", data, 4096 + slot * 32)
        if at:
            if size > _LARGEST:
                raise _damaged(path, f"a disk of {size} bytes")
            devices[slot] = (name(at), size)
    return _Backup(uuid, configurations, devices)


def _clusters(stream: _Stream, path: Path, backup: _Backup) -> Iterator[tuple[int, int, int, bytes]]:
    """Slot, number, mask and stored blocks of every cluster, in the order of the file."""
    while start := stream.read(1):
        head = start + _exactly(stream, _EXTENT_HEADER - 1)
        _, count, uuid, digest = struct.unpack_from(">HH16s16s", head, 4)
        if head[:4] != _EXTENT or uuid != backup.uuid:
            raise _damaged(path, "an extent is none of its own")
        if hashlib.md5(head[:24] + bytes(16) + head[40:], usedforsecurity=False).digest() != digest:
            raise _damaged(path, "an extent has another checksum")
        stored = 0
        for number in range(_CLUSTERS):
            mask, _, slot, cluster = struct.unpack_from(">HBBI", head, 40 + number * 8)
            if slot:
                size = mask.bit_count() * _BLOCK
                stored += mask.bit_count()
                yield slot, cluster, mask, _exactly(stream, size)
        if stored != count:
            raise _damaged(path, f"an extent has {stored} blocks, and says {count}")
