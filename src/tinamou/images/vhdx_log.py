"""The log of a vhdx that was not closed, played back into a copy (source: [MS-VHDX] 2.3, 2.2.2).

Whoever writes a vhdx writes changes of its tables into the log first. Where it ended in between, what it wrote last is in
the log alone. QEMU plays it back into a file it may write to; here nothing is written to, and a log that is damaged is
refused, which QEMU takes for an empty one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tinamou.errors import ImageError
from tinamou.late import dataclass
from tinamou.system.disk import clone
from tinamou.system.extents import extents

__all__ = ["Header", "header_of", "is_unfinished", "played_back", "summed"]

_HEADERS = (0x10000, 0x20000)
"""Where a vhdx has its two headers; the one with the higher number holds."""
_HEADER, _SECTOR = 4096, 4096
_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4s4s8sQQ")
_DATA = struct.Struct("<4sI4084sI")
_LONGEST_LOG = 4 << 20
"""Hyper-V's and QEMU's have 1 MiB."""
_LOOKED_AT = 3
"""So many times its length are summed up at most: a hostile log has an entry at every sector, each as long as the log."""
_NOTHING = bytes(1 << 20)
_LONGEST_FILE = 65 << 40
"""A vhdx holds at most 64 TiB."""
_FIX = "take it again from where it comes from, closed"


def _row(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_row(byte) for byte in range(256)]


@dataclass(frozen=True)
class Header:
    """Of one of the two headers: its place, its number, the log's GUID (zeros: nothing to play back), place and length."""

    at: int
    number: int
    log: bytes
    log_at: int
    log_length: int

    @property
    def unfinished(self) -> bool:
        """Whether the log has what the tables lack."""
        return any(self.log)


def header_of(file: BinaryIO) -> Header | None:
    """The header that holds, None where there is none."""
    found = []
    for at in _HEADERS:
        file.seek(at)
        data = file.read(_HEADER)
        if len(data) == _HEADER and data[:4] == b"head" and _is_whole(data):
            (number,), (length, log_at) = struct.unpack_from("<Q", data, 8), struct.unpack_from("<IQ", data, 68)
            found.append(Header(at, number, data[48:64], log_at, length))
    return max(found, key=lambda one: one.number, default=None)


def is_unfinished(path: Path) -> bool:
    """Whether a file is a vhdx that was not closed. Raises OSError."""
    with path.open("rb") as file:
        if file.read(8) != b"vhdxfile":
            return False
        header = header_of(file)
        return header is not None and header.unfinished


def played_back(source: Path, target: Path) -> None:
    """Write ``target``: ``source`` as it would be, had it been closed. Raises ImageError; there is no target then."""
    try:
        with source.open("rb") as file, target.open("x+b") as copy:
            header = header_of(file)
            entries = list(_active(file, header, source)) if header is not None else []
            if not clone(file.fileno(), copy.fileno()):
                _copied(file, copy)
            for entry in entries:
                _apply(copy, entry)
            if header is not None and header.unfinished:
                _closed(copy, header)
            os.fsync(copy.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Entry:
    """One entry of the log: where it begins and which is the oldest one that counts, from the log's beginning."""

    at: int
    tail: int
    number: int
    flushed: int
    last: int
    data: bytes
    descriptors: int


def _active(file: BinaryIO, header: Header, source: Path) -> Iterator[_Entry]:
    """The entries that are to be played back, oldest first: the sequence that ends with the highest number.

    Raises ImageError where there is none: the log names one that is not in it.
    """
    if not header.unfinished:
        return
    damaged = ImageError(
        f"{source} was not closed, and its log is damaged",
        why="what was written last is in its log alone, which has no whole sequence of entries",
        fix=_FIX,
    )
    length, size = file.seek(0, os.SEEK_END), header.log_length
    if not 0 < size <= _LONGEST_LOG or size % _SECTOR or header.log_at + size > length:
        raise damaged
    file.seek(header.log_at)
    log = file.read(header.log_length)
    best: list[_Entry] = []
    place, left = 0, [len(log) * _LOOKED_AT]
    while place < len(log):
        run = _sequence(log, header.log, place, left)
        tails = [number for number, entry in enumerate(run) if entry.at == run[-1].tail]
        if tails and (not best or run[-1].number > best[-1].number):
            best = run[tails[0] :]
        place += max(_SECTOR, sum(len(entry.data) for entry in run))
    if not best or left[0] < 0 or best[-1].flushed > length or any(entry.last > _LONGEST_FILE for entry in best):
        raise damaged
    yield from best


def _sequence(log: bytes, guid: bytes, place: int, left: list[int]) -> list[_Entry]:
    """Entries one after another from there on, numbered one after another; at most ``left`` bytes are summed up."""
    found: list[_Entry] = []
    room = len(log)
    while room > 0 and (entry := _entry(log, guid, place % len(log), room, left)):
        if found and entry.number != found[-1].number + 1:
            break
        found.append(entry)
        place += len(entry.data)
        room -= len(entry.data)
    return found


def _entry(log: bytes, guid: bytes, at: int, room: int, left: list[int]) -> _Entry | None:
    """The entry at a place of the log, which is a ring; None where none is whole."""
    if log[at : at + 4] != b"loge":
        return None
    _, _, length, tail, number, count, _, whose, flushed, last = _ENTRY.unpack_from(log, at)
    area = -(-(_ENTRY.size + _DESCRIPTOR.size * count) // _SECTOR) * _SECTOR
    if whose != guid or length % _SECTOR or not area <= length <= room or not number:
        return None
    left[0] -= length
    data = log[at : at + length] + log[: max(0, at + length - len(log))]
    if left[0] < 0 or not _is_whole(data):
        return None
    return _Entry(at, tail, number, flushed, last, data, count)


def _apply(copy: BinaryIO, entry: _Entry) -> None:
    """Do what an entry says: sectors written, stretches of zeros. Raises ImageError for what it does not have."""
    end = copy.seek(0, os.SEEK_END)
    if entry.last > end:
        copy.truncate(entry.last)
    at = -(-(_ENTRY.size + _DESCRIPTOR.size * entry.descriptors) // _SECTOR) * _SECTOR
    for number in range(entry.descriptors):
        kind, trailing, leading, place, sequence = _DESCRIPTOR.unpack_from(
            entry.data, _ENTRY.size + _DESCRIPTOR.size * number
        )
        if sequence != entry.number or place % _SECTOR or kind not in (b"zero", b"desc"):
            raise _odd(entry)
        if kind == b"zero":
            (length,) = struct.unpack("<Q", leading)
            if place + length > max(end, entry.last):
                raise _odd(entry)
            _zeros(copy, place, length)
            continue
        if at + _SECTOR > len(entry.data) or place + _SECTOR > max(end, entry.last):
            raise _odd(entry)
        mark, high, middle, low = _DATA.unpack_from(entry.data, at)
        if mark != b"data" or (high << 32 | low) != entry.number:
            raise _odd(entry)
        copy.seek(place)
        copy.write(leading + middle + trailing)
        at += _SECTOR


def _odd(entry: _Entry) -> ImageError:
    why = f"entry {entry.number} of its log says to write what it does not have, or where the file does not reach"
    return ImageError("the log of a vhdx cannot be played back", why=why, fix=_FIX)


def _zeros(copy: BinaryIO, place: int, length: int) -> None:
    """Where there is data: what is a hole is zeros already."""
    copy.flush()
    for begin, end in list(extents(copy.fileno())):
        for at in range(max(begin, place), min(end, place + length), len(_NOTHING)):
            os.pwrite(copy.fileno(), _NOTHING[: min(end, place + length) - at], at)


def _closed(copy: BinaryIO, header: Header) -> None:
    """The other header's place gets one without a log, with the next number: it holds from now on."""
    copy.seek(header.at)
    data = bytearray(copy.read(_HEADER))
    struct.pack_into("<Q", data, 8, header.number + 1)
    data[48:64] = bytes(16)
    copy.seek(next(at for at in _HEADERS if at != header.at))
    copy.write(summed(bytes(data)))
    copy.flush()


def _copied(file: BinaryIO, copy: BinaryIO) -> None:
    """The data of a file; its holes stay holes."""
    end = file.seek(0, os.SEEK_END)
    copy.truncate(end)
    for begin, until in extents(file.fileno()):
        while begin < until:
            done = os.copy_file_range(file.fileno(), copy.fileno(), min(until - begin, 1 << 30), begin, begin)
            if not done:
                raise ImageError("a vhdx became shorter while it was copied", fix="try again when nobody writes to it")
            begin += done


def summed(data: bytes) -> bytes:
    """A header or an entry with the checksum of its content."""
    return data[:4] + struct.pack("<I", _crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


def _is_whole(data: bytes) -> bool:
    return data == summed(data)


def _crc32c(data: bytes) -> int:
    """Castagnoli's checksum (source: RFC 3720, appendix B.4), which zlib has not."""
    value, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
