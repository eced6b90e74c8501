"""A kernel handed to a machine, as firmware measures it: Authenticode over an EFI application with the head QEMU writes.

Source: Microsoft, Windows Authenticode Portable Executable Signature Format, chapter 4 (the digest), as edk2
SecurityPkg/Library/DxeTpm2MeasureBootLib computes it; QEMU hw/i386/x86-common.c (x86_load_linux); Linux
Documentation/arch/x86/boot.rst (the head).
"""

from __future__ import annotations

import hashlib

from tinamou.attest.binary import MalformedError, Reader, number

__all__ = ["as_handed_over", "authenticode"]

_MOST = 256 << 20
_SECTIONS = 96
_REAL, _CMDLINE, _TABLES = 0x10000, 0x20000, 0x28000
"""Where QEMU puts head and arguments, and how much of low memory it keeps for tables, since its release 2.0."""


def authenticode(image: bytes, function: str = "sha384") -> bytes:
    """The digest of an EFI application by which firmware measures it. Raises MalformedError where it is none."""
    if len(image) > _MOST:
        raise MalformedError(f"an image of {len(image)} bytes; {_MOST} are looked at")
    head = number(Reader(image[:0x40], "the image").take(0x40, "its first head")[0x3C:])
    reader = Reader(image[head:], "the image's head")
    if image[:2] != b"MZ" or reader.take(4, "signature") != b"PE\0\0":
        raise MalformedError("it is no EFI application")
    coff = reader.take(20, "head")
    optional = reader.take(number(coff[16:18]), "optional head")
    count, directories = number(coff[2:4]), 112 if number(optional[:2]) == 0x20B else 96
    if count > _SECTIONS or len(optional) < directories + 40:
        raise MalformedError("its optional head is too short, or it has too many sections")
    sections = [reader.take(40, "table of sections") for _ in range(count)]
    start, end = head + 24, number(optional[60:64])
    checksum, security = start + 64, start + directories + 32
    if not security + 8 <= end <= len(image):
        raise MalformedError("its heads are longer than it is")
    digest = hashlib.new(function, image[:checksum] + image[checksum + 4 : security] + image[security + 8 : end])
    for at, size in sorted((number(one[20:24]), number(one[16:20])) for one in sections if any(one[16:20])):
        if at + size > len(image):
            raise MalformedError("one of its sections lies outside of it")
        digest.update(image[at : at + size])
        end += size
    signatures = number(optional[directories + 36 : directories + 40])
    digest.update(image[end : len(image) - signatures] if end < len(image) - signatures else b"")
    return digest.digest()


def as_handed_over(kernel: bytes, initrd: int, below: int) -> bytes:
    """The kernel with the head QEMU writes before it hands it over; ``initrd`` bytes, ``below``: memory below 4 GiB.

    Raises MalformedError for one that is older than boot protocol 2.3, or not loaded high.
    """
    if len(kernel) < 0x1000 or kernel[0x202:0x206] != b"HdrS":
        raise MalformedError("it is no Linux kernel for x86")
    protocol, high = number(kernel[0x206:0x208]), kernel[0x211] & 1
    if protocol < 0x203 or not high:
        raise MalformedError(f"a kernel of boot protocol {protocol:#x}; 0x203 and later are known here")
    found = bytearray(kernel)
    found[0x210] = 0xB0
    found[0x211] |= 0x80
    found[0x224:0x226] = (_CMDLINE - _REAL - 0x200).to_bytes(2, "little")
    found[0x228:0x22C] = _CMDLINE.to_bytes(4, "little")
    if initrd:
        anywhere = protocol >= 0x20C and number(kernel[0x236:0x238]) & 2
        most = min(0xFFFFFFFF if anywhere else number(kernel[0x22C:0x230]), below - _TABLES - 1)
        found[0x218:0x21C] = ((most - initrd) & ~0xFFF).to_bytes(4, "little")
        found[0x21C:0x220] = initrd.to_bytes(4, "little")
    return bytes(found)
