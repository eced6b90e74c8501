"""How a disk boots and for which architecture, read from its partition tables, its EFI partition or its El Torito catalogue.

Sources: UEFI specification 2.10 (GPT, removable media path), Microsoft FAT specification, ISO 9660 and El Torito 1.0, the
Discoverable Partitions Specification.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator

from tinamou.images.blocks import Blocks
from tinamou.images.fat import list_folder
from tinamou.late import dataclass

__all__ = ["Boot", "Partition", "examine_disc", "examine_disk", "volumes"]

_SECTOR = 512
_MOST_VOLUMES = 16
_DISC_SECTOR = 2048
_ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
_ROOTS = {
    uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "x86_64",
    uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "aarch64",
    uuid.UUID("72ec70a6-cf74-40e6-bd49-4bda08e8f224"): "riscv64",
}
_LOADERS = {
    "BOOTX64.EFI": "x86_64",
    "BOOTAA64.EFI": "aarch64",
    "BOOTRISCV64.EFI": "riscv64",
    "BOOTIA32.EFI": "i386",
    "BOOTARM.EFI": "arm",
    "BOOTLOONGARCH64.EFI": "loongarch64",
}


@dataclass(frozen=True)
class Boot:
    """``ways`` holds ``bios`` and ``uefi`` where found, ``arches`` what it can run on (empty: unknown).

    ``missing`` is the number of bytes the partition table or volume claims beyond the end of the disk.
    """

    ways: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    missing: int = 0


@dataclass(frozen=True)
class Partition:
    """``start`` and ``end`` in bytes; ``kind`` is a GPT type, or the MBR's type byte."""

    start: int
    end: int
    kind: uuid.UUID | int
    active: bool = False


def examine_disk(blocks: Blocks) -> Boot:
    """A hard disk: MBR, GPT, or a bare FAT volume. Raises ImageError and Unreadable as reading does."""
    sector = blocks.read(0, _SECTOR)
    if len(sector) < _SECTOR or sector[510:] != b"\x55\xaa":
        return Boot()
    if _is_volume(sector):
        return _boot(False, _loaders(blocks, [0]), ())
    mbr = list(_mbr(sector))
    gpt, table_end = _gpt(blocks) if any(p.kind == 0xEE for p in mbr) else ([], 0)
    partitions = gpt or mbr
    end = max([table_end, *(p.end for p in partitions)])
    code = any(sector[:440])
    starts = any(p.active for p in mbr) or any(p.kind == _BIOS_BOOT for p in gpt) or b"GRUB" in sector[:440]
    loaders = _loaders(blocks, [p.start for p in partitions if p.kind in (_ESP, 0xEF)])
    hints = tuple(dict.fromkeys(_ROOTS[p.kind] for p in gpt if isinstance(p.kind, uuid.UUID) and p.kind in _ROOTS))
    found = _boot(code and starts, loaders, hints)
    return Boot(found.ways, found.arches, max(0, end - blocks.size))


def volumes(blocks: Blocks) -> list[int]:
    """Where the volumes of a hard disk begin, in bytes: its partitions, or the disk itself. Raises as `examine_disk`."""
    sector = blocks.read(0, _SECTOR)
    if len(sector) < _SECTOR or sector[510:] != b"\x55\xaa":
        return []
    if _is_volume(sector):
        return [0]
    mbr = list(_mbr(sector))
    gpt = _gpt(blocks)[0] if any(p.kind == 0xEE for p in mbr) else []
    return [p.start for p in gpt or mbr if p.start]


def examine_disc(blocks: Blocks) -> Boot:
    """An optical disc: ISO 9660 with an El Torito catalogue. Raises ImageError and Unreadable as reading does."""
    missing = catalogue = 0
    for number in range(16, 48):
        sector = blocks.read(number * _DISC_SECTOR, _DISC_SECTOR)
        if len(sector) < _DISC_SECTOR or sector[1:6] != b"CD001" or sector[0] == 255:
            break
        if sector[0] == 1:
            size = struct.unpack_from("<I", sector, 80)[0] * _DISC_SECTOR
            missing = max(0, size - blocks.size)
        if sector[0] == 0 and sector[7:30] == b"EL TORITO SPECIFICATION":
            catalogue = struct.unpack_from("<I", sector, 71)[0]
    bios, starts = _el_torito(blocks.read(catalogue * _DISC_SECTOR, _DISC_SECTOR)) if catalogue else (False, [])
    found = _boot(bios, _loaders(blocks, starts), ())
    return Boot(found.ways or (("uefi",) if starts else ()), found.arches, missing if missing > 150 * _DISC_SECTOR else 0)


def _boot(bios: bool, loaders: tuple[str, ...], hints: tuple[str, ...]) -> Boot:
    ways = (("bios",) if bios else ()) + (("uefi",) if loaders else ())
    arches = loaders + (("x86_64",) if bios and "x86_64" not in loaders else ())
    return Boot(ways, arches or hints)


def _is_volume(sector: bytes) -> bool:
    """A file system's own boot sector, which carries the same signature as an MBR."""
    return sector[54:57] == b"FAT" or sector[82:87] == b"FAT32" or sector[3:8] in (b"NTFS ", b"EXFAT")


def _mbr(sector: bytes) -> Iterator[Partition]:
    entries = [sector[446 + 16 * n : 462 + 16 * n] for n in range(4)]
    if any(entry[0] not in (0, 0x80) for entry in entries):
        return
    for entry in entries:
        start, count = struct.unpack_from("<II", entry, 8)
        if entry[4] and entry[4] != 0xEE and count:
            yield Partition(start * _SECTOR, (start + count) * _SECTOR, entry[4], entry[0] == 0x80)
        elif entry[4] == 0xEE:
            yield Partition(0, 0, 0xEE, entry[0] == 0x80)


def _gpt(blocks: Blocks) -> tuple[list[Partition], int]:
    """The partitions, and where the backup table at the end of the disk ends; nothing when the checksum is wrong."""
    header = blocks.read(_SECTOR, _SECTOR)
    if header[:8] != b"EFI PART" or len(header) < 92:
        return [], 0
    length, checksum = struct.unpack_from("<II", header, 12)
    if not 92 <= length <= _SECTOR or zlib.crc32(header[:16] + bytes(4) + header[20:length]) != checksum:
        return [], 0
    backup, entries_at, count, width = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<QII", header, 72)
    if not 128 <= width <= 1024 or count > 1024:
        return [], 0
    table = blocks.read(entries_at * _SECTOR, count * width)
    return list(_gpt_entries(table, width)), (backup + 1) * _SECTOR


def _gpt_entries(table: bytes, width: int) -> Iterator[Partition]:
    for at in range(0, len(table) - 127, width):
        kind = uuid.UUID(bytes_le=table[at : at + 16])
        first, last = struct.unpack_from("<QQ", table, at + 32)
        if kind.int and first <= last:
            yield Partition(first * _SECTOR, (last + 1) * _SECTOR, kind)


def _loaders(blocks: Blocks, starts: list[int]) -> tuple[str, ...]:
    """The architectures whose removable-media loader lies in one of the first FAT volumes that begin at ``starts``."""
    names = {name for start in starts[:_MOST_VOLUMES] for name in list_folder(blocks, start, ("EFI", "BOOT"))}
    return tuple(arch for loader, arch in _LOADERS.items() if loader in names)


def _el_torito(catalogue: bytes) -> tuple[bool, list[int]]:
    """Whether there is an entry for PC firmware, and the byte offsets of the EFI images."""
    if len(catalogue) < 64 or catalogue[0] != 1 or catalogue[30:32] != b"\x55\xaa":
        return False, []
    platform, bios, starts = catalogue[1], False, []
    for at in range(32, len(catalogue) - 31, 32):
        entry = catalogue[at : at + 32]
        if entry[0] in (0x90, 0x91):
            platform = entry[1]
        elif entry[0] == 0x88 and platform == 0xEF:
            starts.append(struct.unpack_from("<I", entry, 8)[0] * _DISC_SECTOR)
        elif entry[0] == 0x88:
            bios = bios or platform == 0
    return bios, starts
