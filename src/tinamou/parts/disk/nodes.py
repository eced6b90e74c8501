"""A disk's chain as blockdev nodes, every file handed over, nothing left for QEMU to look up by itself."""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.blueprint import Element, Value, Why
from tinamou.facts import ChainFile
from tinamou.parts.disk.disk import PlanDisk
from tinamou.parts.disk.spec import DIRECT, DiskSpec

__all__ = ["file_options", "guest_node", "nodes", "writes"]


def guest_node(disk: PlanDisk) -> str:
    """The node the guest's device is attached to: the limiter where there is one, else the top of the chain."""
    return f"{disk.node}-limit" if _limited(disk) else _name(disk, 0)


def writes(disk: PlanDisk, file: ChainFile) -> bool:
    """Whether QEMU may write to a file of the chain: the top, and the machine's own below it, which merging rewrites."""
    return not disk.readonly and (file == disk.top or file.own)


def nodes(disk: PlanDisk) -> Iterator[Element]:
    """The objects and nodes of one disk, in the order QEMU needs them: bottom first."""
    if disk.options.key:
        why = Why(f"spec disk[{disk.number}].key", "the passphrase is read from a file and never seen in a command line")
        yield Element("object", {"qom-type": "secret", "id": f"{disk.node}-key", "file": disk.options.key}, why)
    for index in reversed(range(len(disk.files))):
        yield Element("blockdev", _node(disk, index), _why(disk, index))
    if _limited(disk):
        yield from _limit(disk)


def file_options(options: DiskSpec, *, write: bool = True) -> dict[str, Value]:
    """How a file node reads and writes; the same for the disk's first file and every overlay that comes later.

    ``options.aio`` is resolved by now: no longer ``auto``.
    """
    props: dict[str, Value] = {"aio": options.aio, **_cache(options)}
    return {**props, "discard": "unmap"} if options.discard and write else props


def _node(disk: PlanDisk, index: int) -> dict[str, Value]:
    file = disk.files[index]
    write = writes(disk, file)
    access: dict[str, Value] = {"driver": "file", "filename": file.path, "read-only": not write}
    if file.frozen:  # a QEMU that froze it may hold on to its lock for writing: it cannot open it anew for reading only
        access["locking"] = "off"
    props: dict[str, Value] = {
        "driver": "raw" if file.format == "iso" else file.format,
        "node-name": _name(disk, index),
        "read-only": not write,
        **_cache(disk.options),
    }
    if write and disk.options.discard:
        props["discard"] = "unmap"
    if write and disk.options.detect_zeroes != "off":
        props["detect-zeroes"] = disk.options.detect_zeroes
    if index + 1 < len(disk.files):
        props["backing"] = _name(disk, index + 1)
    if disk.options.key and file.encrypted:
        props["encrypt"] = {"format": "luks", "key-secret": f"{disk.node}-key"}
    return {**props, "file": {**access, **file_options(disk.options, write=write)}}


def _name(disk: PlanDisk, index: int) -> str:
    """The machine's own files are named after the file, so that nodes can be found again; the others after the disk."""
    file = disk.files[index]
    if file.own:
        return file.path.rsplit("/", 1)[-1].partition(".")[0]
    below = index - sum(one.own for one in disk.files)
    if len(disk.files) == 1:
        return disk.node
    return f"{disk.node}-base" + (f"{below}" if below else "")


def _why(disk: PlanDisk, index: int) -> Why:
    if index == 0:
        return Why(disk.why.asked_by, f"{disk.why.reason}; {disk.aio_why}") if disk.aio_why else disk.why
    if disk.files[index].own:
        return Why("state", "an older file of this machine's disk, frozen by a snapshot")
    return Why("image", "the image all its machines share, never written")


def _cache(options: DiskSpec) -> dict[str, Value]:
    direct = options.cache in DIRECT
    unsafe = options.cache == "unsafe"
    return {"cache": {"direct": direct, "no-flush": unsafe}} if direct or unsafe else {}


def _limited(disk: PlanDisk) -> bool:
    return bool(disk.options.iops or disk.options.bandwidth)


def _limit(disk: PlanDisk) -> Iterator[Element]:
    why = Why(f"spec disk[{disk.number}]", "requests beyond the limit wait, so that this disk leaves room for others")
    limits: dict[str, Value] = {}
    if disk.options.iops:
        limits["iops-total"] = disk.options.iops
    if disk.options.bandwidth:
        limits["bps-total"] = int(disk.options.bandwidth)
    group = f"{disk.node}-limits"
    yield Element("object", {"qom-type": "throttle-group", "id": group, "limits": limits}, why)
    name = f"{disk.node}-limit"
    yield Element(
        "blockdev", {"driver": "throttle", "node-name": name, "throttle-group": group, "file": _name(disk, 0)}, why
    )
