"""Firmware that does nothing and says of itself what OVMF's AmdSev build says: the table at its end, and SEV's metadata.

Source: edk2 OvmfPkg/ResetVector (the table of GUIDs, OvmfSevMetadata.asm); QEMU hw/i386/pc_sysfw_ovmf.c.
"""

from __future__ import annotations

import uuid

HASHES_AT, RESET = 0x80FC00, 0x80B004
SECTIONS = (
    *((0x800000, 0x9000, 1), (0x80A000, 0x3000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3)),
    *((0x80F000, 0x1000, 0x10), (0x811000, 0xF000, 1)),
)
"""Where, how long, of which type: memory that is empty (1), the page of secrets (2), of CPUID (3), of hashes (0x10)."""


def _entry(name: str, data: bytes) -> bytes:
    return data + (len(data) + 18).to_bytes(2, "little") + uuid.UUID(name).bytes_le


def _words(*values: int) -> bytes:
    return b"".join(one.to_bytes(4, "little") for one in values)


def image(pages: int = 4) -> bytes:
    """The whole image; its last page has table and metadata, the others differ from each other."""
    metadata = b"ASEV" + _words(16 + 12 * len(SECTIONS), 1, len(SECTIONS)) + b"".join(_words(*one) for one in SECTIONS)
    table = _entry("7255371f-3a3b-4b04-927b-1da6efa8d454", _words(HASHES_AT, 0x400))
    table += _entry("4c2eb361-7d9b-4cc3-8081-127c90d3d294", _words(0x80D000, 0x1000))
    table += _entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", _words(RESET))
    table += _entry("dc886566-984a-4798-a75e-5585a7bf67cc", _words(1024))
    table += (len(table) + 18).to_bytes(2, "little") + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    last = metadata.ljust(1024 - 32 - len(table), b"\0") + table + bytes(32)
    return b"".join(bytes([page]) * 4096 for page in range(1, pages)) + bytes(4096 - len(last)) + last
