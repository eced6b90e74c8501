"""An image that is part of a larger file, such as a disk inside an OVA: checked where it lies, named without unpacking.

Source: VMware Virtual Disk Format 5.0; QEMU docs/system/images, *Block device options*.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images import qemu_img as tool
from tinamou.images.formats import HEAD, TAIL, detect_format
from tinamou.images.vmdk import extent_files

__all__ = ["Part", "check_part", "options"]

Part = tuple[int, int]
"""Offset and length in bytes."""


def options(path: Path, format: str, part: Part | None = None) -> str:
    """The image in the notation of ``--image-opts``."""
    name = str(path).replace(",", ",,")
    if part is None:
        return f"driver={format},file.driver=file,file.filename={name}"
    offset, size = part
    whole = f"file.file.driver=file,file.file.filename={name}"
    return f"driver={format},file.driver=raw,file.offset={offset},file.size={size},{whole}"


def check_part(path: Path, part: Part) -> str:
    """The format of the image there. Raises ImageError for anything but a vmdk that is whole and needs no other file."""
    offset, size = part
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(min(HEAD, size))
        file.seek(offset + max(0, size - TAIL))
        tail = file.read(min(TAIL, size))
    found = detect_format(f"the disk in {path}", head, tail)
    if found != "vmdk":
        fix = "unpack the archive with tar, and convert the description in it"
        raise ImageError(f"the disk in {path} is {found}, not vmdk", why="an OVA's disks are vmdk", fix=fix)
    if head[:4] != b"KDMV" or len(head) < 512 or not struct.unpack_from("<Q", head, 12)[0]:
        why = "a description of a disk could name any file of this host as the one that has its data"
        raise ImageError(f"the disk in {path} keeps its data in other files", why=why, fix="export it as one file")
    extent_files(path, head, offset)
    tool.check(str(path), ["--image-opts", options(path, found, part)], ())
    return found
