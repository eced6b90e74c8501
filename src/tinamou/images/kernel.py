"""Kernel images: what a distribution ships, unpacked to what QEMU starts fastest.

The payload of a bzImage is found by the boot protocol header (Documentation/arch/x86/boot.rst: ``setup_sects``,
``payload_offset``, ``payload_length``). Starting at the PVH entry point skips the decompressor, and with it the random
choice of the kernel's own address (KASLR of the text); the other randomisations stay.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.elf import Elf, ElfError
from tinamou.system.codecs import CodecError, compression_of, decompress

__all__ = ["bzimage_payload", "plain_image", "pvh_kernel", "write_kernel"]


def bzimage_payload(data: bytes) -> bytes | None:
    """The compressed kernel inside a bzImage of boot protocol 2.08 or newer, None where there is none."""
    if len(data) < 0x250 or data[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", data, 0x206)[0] < 0x208:
        return None
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or 4) + 1) * 512 + offset
    return data[start : start + length]


def pvh_kernel(data: bytes) -> bytes | None:
    """The uncompressed ELF kernel with a PVH entry point inside a bzImage; None where the kernel has none.

    None too where it is packed in a way not known here (lzo): it starts by its own decompressor then. Raises ImageError.
    """
    payload = bzimage_payload(data)
    if payload is None or not compression_of(payload):
        return None
    try:
        elf = Elf(_unpacked(payload))
        return elf.data if elf.pvh_entry() is not None else None
    except ElfError:
        return None


def plain_image(data: bytes) -> bytes:
    """An arm64 or riscv64 kernel without compression around it; an x86 bzImage and a plain Image as they are.

    Raises ImageError for one that cannot be unpacked.
    """
    if data[:2] == b"MZ" and data[4:8] == b"zimg" and len(data) >= 16:
        offset, length = struct.unpack_from("<II", data, 8)
        return _unpacked(data[offset : offset + length])
    return _unpacked(data) if compression_of(data) else data


def _unpacked(data: bytes) -> bytes:
    try:
        return decompress(data)
    except CodecError as error:
        raise ImageError("the kernel cannot be unpacked", why=str(error)) from error


def write_kernel(data: bytes, out: Path) -> bool:
    """Write ``vmlinuz``, and ``vmlinux`` where the kernel has a PVH entry point; tell whether it has."""
    (out / "vmlinuz").write_bytes(plain_image(data))
    fast = pvh_kernel(data)
    if fast is not None:
        (out / "vmlinux").write_bytes(fast)
    return fast is not None
