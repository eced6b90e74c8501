"""Disks built in a few milliseconds: partition tables written by hand, file systems by the real tools."""

from __future__ import annotations

import shutil
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

SECTOR = 512
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def mbr(partitions: list[tuple[int, int, int, int]], code: bytes = b"") -> bytes:
    """Boot code and up to four ``(status, type, first sector, sectors)``."""
    table = b"".join(struct.pack("<B3xB3xII", *p) for p in partitions)
    return code.ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(size: int, kind: uuid.UUID, first: int, last: int) -> bytes:
    """Protective MBR, header and table of one partition for a disk of ``size`` bytes."""
    entry = kind.bytes_le + uuid.UUID(int=7).bytes_le + struct.pack("<QQQ", first, last, 0) + bytes(72)
    table = entry.ljust(128 * 128, b"\0")
    end = size // SECTOR

    def header(checksum: int) -> bytes:
        fields = (b"EFI PART", 0x10000, 92, checksum, 0, 1, end - 1, 34, end - 34, uuid.UUID(int=9).bytes_le, 2, 128, 128)
        return struct.pack("<8sIIIIQQQQ16sQIII", *fields, zlib.crc32(table))

    protective = mbr([(0, 0xEE, 1, end - 1)])
    return protective + header(zlib.crc32(header(0))).ljust(SECTOR, b"\0") + table


def fat(path: Path, loader: str, size: int, width: int) -> bytes:
    """A FAT volume holding EFI/BOOT/``loader``, made by mkfs.fat and mtools."""
    for tool in ("mkfs.fat", "mmd", "mcopy"):
        if not shutil.which(tool) and not shutil.which(tool, path="/usr/sbin"):
            pytest.skip(f"{tool} is not installed")
    path.write_bytes(bytes(size))
    (path.parent / "loader").write_bytes(b"MZ")
    subprocess.run(["/usr/sbin/mkfs.fat", "-F", str(width), path], check=True, capture_output=True)
    subprocess.run(["mmd", "-i", path, "::EFI", "::EFI/BOOT"], check=True)
    subprocess.run(["mcopy", "-i", path, path.parent / "loader", f"::EFI/BOOT/{loader}"], check=True)
    return path.read_bytes()


def qemu_img(*argv: str | Path) -> str:
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed")
    return subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True, text=True).stdout
