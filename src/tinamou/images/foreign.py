"""Checks of the formats of other virtualizers (vmdk, vhdx, vdi, vpc, parallels) before QEMU's drivers read them."""

from __future__ import annotations

import struct
import sys
from array import array
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images import qemu_img as tool
from tinamou.images.chain import Layer
from tinamou.images.formats import HEAD, TAIL
from tinamou.images.vhdx_log import is_unfinished
from tinamou.images.vmdk import extent_files

__all__ = ["UnfinishedError", "measure_foreign", "parallels_missing"]

_CHECKABLE = ("vmdk", "vhdx", "vdi", "parallels")


class UnfinishedError(ImageError):
    """An image whose last writes are in its log alone; `tinamou.images.vhdx_log.played_back` makes a copy that has them."""


def measure_foreign(layer: Layer) -> tuple[int, list[str]]:
    """The virtual size in bytes, and the other files the image keeps data in.

    Raises ImageError for a truncated or damaged file, one that needs a parent disk, and one naming files elsewhere.
    """
    path = Path(layer.path)
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, layer.length - TAIL))
        tail = file.read(TAIL)
    if layer.format == "vhdx":
        _refuse_unfinished(path)
    others = [str(file) for file in extent_files(path, head)] if layer.format == "vmdk" else []
    if layer.format == "parallels":
        missing = parallels_missing(_with_table(path, head), layer.length)
    else:
        missing = {"vdi": _vdi_missing, "vpc": _vpc_missing}.get(layer.format, _nothing_missing)(head, tail, layer.length)
    if missing:
        raise ImageError(f"{path} is truncated", why=missing, fix="fetch the image again")
    info = tool.info(layer.path, layer.format, others)
    if info.get("backing-filename"):
        raise ImageError(f"{path} needs another disk", why=f"it names {info['backing-filename']} as its parent")
    if layer.format in _CHECKABLE:
        tool.check(layer.path, ["-f", layer.format, layer.path], others)
    return int(info["virtual-size"]), others


def _refuse_unfinished(path: Path) -> None:
    """Raise UnfinishedError for a vhdx whose log holds what its tables lack: QEMU plays it back into a file it may write to,
    and reads one whose log is damaged as if there were none."""
    if is_unfinished(path):
        why = "what was written last is in its log alone: whoever wrote it ended before the file was closed"
        fix = f"tinamou image import {path} NAME plays it back into a copy"
        raise UnfinishedError(f"{path} was not closed", why=why, fix=fix)


def _nothing_missing(head: bytes, tail: bytes, length: int) -> str:
    return ""


def _vdi_missing(head: bytes, tail: bytes, length: int) -> str:
    """Source of the offsets: QEMU block/vdi.c, VdiHeader."""
    if len(head) < 512:
        return "the file is shorter than a vdi header"
    data_at = struct.unpack_from("<I", head, 0x158)[0]
    block_size, block_extra, _, allocated = struct.unpack_from("<IIII", head, 0x178)
    end = data_at + allocated * (block_size + block_extra)
    return f"its {allocated} blocks reach byte {end}, the file has {length}" if end > length else ""


_MOST_OF_TABLE = 16 << 20
_PARALLELS = struct.Struct("<16sIIIIIQ")
"""Source: QEMU docs/interop/parallels.rst: magic, version, heads, cylinders, sectors of a cluster, entries, sectors."""


def _with_table(path: Path, head: bytes) -> bytes:
    """The beginning of a Parallels disk with its whole table of clusters, of at most 16 MiB."""
    entries = _PARALLELS.unpack_from(head)[5] if len(head) >= 64 else 0
    with path.open("rb") as file:
        return file.read(min(64 + 4 * entries, _MOST_OF_TABLE))


def parallels_missing(head: bytes, length: int) -> str:
    """What a Parallels disk of that length lacks, by its head with the table; empty for a whole one.

    It is never left to ``qemu-img check``, which takes some for sound, and does not bear others (7.2 to 11.1).
    """
    if len(head) < 64:
        return "the file is shorter than its header"
    magic, _, _, _, sectors, entries, _ = _PARALLELS.unpack_from(head)
    if len(head) < 64 + 4 * entries:
        return f"its table of {entries} clusters ends after {(len(head) - 64) // 4}"
    unit = 512 if magic == b"WithoutFreeSpace" else 512 * sectors
    table = array("I", head[64 : 64 + 4 * entries])
    if sys.byteorder == "big":
        table.byteswap()
    last = max(table, default=0)
    end = last * unit + 512 * sectors if last else 0
    return f"its last cluster ends at byte {end}, the file has {length}" if end > length else ""


def _vpc_missing(head: bytes, tail: bytes, length: int) -> str:
    return "" if tail[:8] == b"conectix" else "the footer that ends every vhd file is not there"
