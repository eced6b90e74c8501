"""Telling image formats apart by their first and last bytes, and naming what is not a disk image at all."""

from __future__ import annotations

import struct

from tinamou.errors import ImageError

__all__ = ["HEAD", "TAIL", "detect_format"]

HEAD = 65536
TAIL = 512
_ISO_MAGIC = slice(32769, 32774)
_VDI_MAGIC = struct.pack("<I", 0xBEDA107F)

_REFUSED: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "a gzip archive", "unpack it with gunzip first"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it with unxz first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it with zstd -d first"),
    (0, b"BZh", "a bzip2 archive", "unpack it with bunzip2 first"),
    (0, b"PK\3\4", "a zip archive", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "unpack it first"),
    (0, b"\x89LZO\0", "an lzop archive", "unpack it with lzop -d first"),
    (0, b"VMA\0", "a backup of Proxmox VE", "unpack it there with vma extract, then name the disk inside it"),
    (257, b"ustar", "a tar archive (an OVA and an XVA are one)", "unpack it, then name the disk inside it"),
    (0, b"\x7fELF", "an ELF program or kernel", "a kernel is given with --kernel, not as an image"),
    (0x202, b"HdrS", "a Linux kernel", "a kernel is given with --kernel, not as an image"),
    (0, b"070701", "a cpio archive (an initrd)", "an initrd is given with --initrd, not as an image"),
    (0, b"QED\0", "a disk in QEMU's retired qed format", "convert it with qemu-img convert -O qcow2"),
)


def detect_format(path: str, head: bytes, tail: bytes) -> str:
    """QEMU's name for the format (``iso`` for an optical disc) of a file beginning with ``head`` and ending with ``tail``.

    ``head`` is the first HEAD bytes, ``tail`` the last TAIL bytes, both shorter for a shorter file. Raises ImageError for
    web pages, archives, kernels, text and formats QEMU cannot run from; a file without any mark is ``raw``.
    """
    marked = _marked(head, tail)
    if marked == "qcow":
        raise ImageError(f"{path} is a version 1 qcow image", fix="convert it with qemu-img convert -O qcow2")
    if marked:
        return marked
    for offset, magic, what, fix in _REFUSED:
        if head[offset : offset + len(magic)] == magic:
            raise ImageError(f"{path} is not a disk image", why=f"it is {what}", fix=fix)
    _refuse_text(path, head)
    return "raw"


def _marked(head: bytes, tail: bytes) -> str:
    if head[:4] == b"QFI\xfb":
        return "qcow" if head[4:8] == b"\0\0\0\1" else "qcow2"
    if head[:4] in (b"KDMV", b"COWD") or head.lstrip()[:21].lower() == b"# disk descriptorfile":
        return "vmdk"
    if head[:8] == b"vhdxfile":
        return "vhdx"
    if head[0x40:0x44] == _VDI_MAGIC:
        return "vdi"
    if head[:16] in (b"WithoutFreeSpace", b"WithouFreSpacExt"):
        return "parallels"
    if head[:8] == b"conectix" or tail[:8] == b"conectix":
        return "vpc"
    return "iso" if head[_ISO_MAGIC] == b"CD001" else ""


def _refuse_text(path: str, head: bytes) -> None:
    start = head[:4096]
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise ImageError(
            f"{path} is not a disk image",
            why="it is a web page: the server answered with a page instead of the file",
            fix="fetch the image again from its real address",
        )
    if start and all(byte in b"\t\n\r\f\x1b" or byte >= 32 for byte in start):
        raise ImageError(f"{path} is not a disk image", why="it is a text file", fix="name the image itself")
