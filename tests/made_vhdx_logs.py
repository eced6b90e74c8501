"""Logs of vhdx files, written as a writer that ended too early leaves them (source: [MS-VHDX] 2.3)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

GUID = bytes(range(1, 17))
SECTOR, LOG = 4096, 1 << 20


def crc32c(data: bytes) -> int:
    """Bit by bit, as it is defined."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def summed(data: bytearray) -> bytes:
    """With its checksum."""
    data[4:8] = bytes(4)
    data[4:8] = struct.pack("<I", crc32c(bytes(data)))
    return bytes(data)


def entry(number: int, tail: int, size: int, writes: Sequence[tuple[int, bytes | int]], last: int = 0) -> bytes:
    """An entry of the log: sectors to write, or lengths to clear, by place; ``size`` is the file's."""
    area = -(-(64 + 32 * len(writes)) // SECTOR) * SECTOR
    sectors = [what for _, what in writes if isinstance(what, bytes)]
    data = bytearray(area + SECTOR * len(sectors))
    struct.pack_into(
        "<4sIIIQII16sQQ", data, 0, b"loge", 0, len(data), tail, number, len(writes), 0, GUID, size, last or size
    )
    for index, (place, what) in enumerate(writes):
        if isinstance(what, bytes):
            descriptor = (b"desc", what[-4:], what[:8], place, number)
        else:
            descriptor = (b"zero", bytes(4), struct.pack("<Q", what), place, number)
        struct.pack_into("<4s4s8sQQ", data, 64 + 32 * index, *descriptor)
    for index, sector in enumerate(sectors):
        at = area + SECTOR * index
        struct.pack_into("<4sI4084sI", data, at, b"data", number >> 32, sector[8:-4], number & 0xFFFFFFFF)
    return summed(data)


def put(path: Path, pieces: Sequence[tuple[int, bytes]]) -> None:
    """Pieces into the log's ring, at places of it, and both headers name the log."""
    with path.open("r+b") as file:
        for number, at in enumerate((0x10000, 0x20000), 7):
            file.seek(at)
            header = bytearray(file.read(4096))
            struct.pack_into("<Q", header, 8, number)
            header[48:64] = GUID
            length, log_at = struct.unpack_from("<IQ", header, 68)
            assert length == LOG
            file.seek(at)
            file.write(summed(header))
        for place, data in pieces:
            for offset in range(0, len(data), SECTOR):
                file.seek(log_at + (place + offset) % LOG)
                file.write(data[offset : offset + SECTOR])


def differing(before: Path, after: Path) -> list[tuple[int, bytes]]:
    """The sectors in which a file differs from another, beyond its headers and its log."""
    old, new = before.read_bytes(), after.read_bytes()
    old += bytes(len(new) - len(old))
    return [
        (at, new[at : at + SECTOR])
        for at in range(2 << 20, len(new), SECTOR)
        if new[at : at + SECTOR] != old[at : at + SECTOR]
    ]
