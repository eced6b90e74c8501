"""Writing a GUID partition table (source: UEFI specification 2.10, section 5), and GRUB's first stages beside it."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from tinamou.late import dataclass

__all__ = ["BIOS_BOOT", "EFI_SYSTEM", "ROOTS", "SECTOR", "Identities", "Partition", "write_bios_boot", "write_table"]

SECTOR = 512
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
ROOTS = {
    "x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "riscv64": "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
}
"""Types of a root partition (source: The Discoverable Partitions Specification)."""

_NAMESPACE = uuid.UUID("6f1d7c52-6d3f-5c8e-9d0c-7e1f6c1f2b10")
_ENTRIES, _ENTRY_SIZE = 128, 128
_TABLE_SECTORS = _ENTRIES * _ENTRY_SIZE // SECTOR


@dataclass(frozen=True)
class Partition:
    """One partition: its type, first sector, number of sectors, name, identity."""

    type: str
    first: int
    sectors: int
    name: str
    identity: str

    def entry(self) -> bytes:
        """As the table has it."""
        ids = uuid.UUID(self.type).bytes_le + uuid.UUID(self.identity).bytes_le
        last = self.first + self.sectors - 1
        return ids + struct.pack("<QQQ", self.first, last, 0) + self.name.encode("utf-16-le").ljust(72, b"\0")


@dataclass(frozen=True)
class Identities:
    """The identities of a disk, its partitions and file systems; the same words give the same."""

    disk: str
    root: str
    esp: str

    @classmethod
    def of(cls, words: str) -> Identities:
        """Derived from words; ``esp`` is a FAT volume number like ``1A2B-3C4D``."""
        disk, root, esp = (str(uuid.uuid5(_NAMESPACE, f"{words} {name}")) for name in ("disk", "root", "esp"))
        short = esp.replace("-", "")[:8].upper()
        return cls(disk, root, f"{short[:4]}-{short[4:]}")

    def of_partition(self, name: str) -> str:
        """The identity of a partition."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.disk} {name}"))


def write_table(disk: BinaryIO, sectors: int, identity: str, partitions: Sequence[Partition]) -> None:
    """Write the protective MBR, the table and its copy at the end of a disk of so many 512-byte sectors."""
    table = b"".join(p.entry() for p in partitions).ljust(_ENTRIES * _ENTRY_SIZE, b"\0")
    last = sectors - 1
    disk.seek(446)
    disk.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF)))
    disk.write(b"\0" * 48 + b"\x55\xaa")
    disk.write(_header(1, last, 2, identity, table) + table)
    disk.seek((last - _TABLE_SECTORS) * SECTOR)
    disk.write(table + _header(last, 1, last - _TABLE_SECTORS, identity, table))


def _header(here: int, other: int, entries: int, identity: str, table: bytes) -> bytes:
    first, last = 2 + _TABLE_SECTORS, max(here, other) - _TABLE_SECTORS - 1
    body = struct.pack("<QQQQ", here, other, first, last) + uuid.UUID(identity).bytes_le
    body += struct.pack("<QIII", entries, _ENTRIES, _ENTRY_SIZE, zlib.crc32(table))
    start = struct.pack("<8sII", b"EFI PART", 0x10000, 92)
    crc = zlib.crc32(start + struct.pack("<II", 0, 0) + body)
    return (start + struct.pack("<II", crc, 0) + body).ljust(SECTOR, b"\0")


def write_bios_boot(disk: BinaryIO, boot: bytes, core: bytes, partition: Partition) -> None:
    """Put GRUB's boot.img into the MBR and core.img into its partition, each pointed at what it loads next.

    What grub-bios-setup does, without a block device: ``boot.img`` has the sector of ``core.img`` at 0x5c, and its test of
    the drive number at 0x66 is taken out as for any hard disk; the first sector of ``core.img`` has that of the rest at
    0x1f4 (source: GRUB, include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/diskboot.S).
    """
    if len(core) > partition.sectors * SECTOR:
        raise ValueError(f"core.img of {len(core)} bytes does not fit its partition")
    first = bytearray(boot[:440])
    struct.pack_into("<Q", first, 0x5C, partition.first)
    struct.pack_into("<H", first, 0x66, 0x9090)
    rest = bytearray(core)
    struct.pack_into("<Q", rest, 0x1F4, partition.first + 1)
    disk.seek(0)
    disk.write(first)
    disk.seek(partition.first * SECTOR)
    disk.write(rest)
