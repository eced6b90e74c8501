"""What QEMU itself says of a running machine's disks: which files each device reads through; opening and closing them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinamou.control import RefusedError, Session
from tinamou.control.answers import number, record, records, text
from tinamou.errors import ControlError

__all__ = ["Attached", "attached", "close_unused", "node_of", "nodes", "open_overlay", "open_paths"]

_FDSET = "/dev/fdset/"
_NOT_FORMATS = frozenset(
    {
        "file",
        "host_device",
        "throttle",
        "copy-before-write",
        "commit_top",
        "mirror_top",
        "copy-on-read",
        "nbd",
        "preallocate",
    }
)


@dataclass(frozen=True, slots=True)
class Attached:
    """One device's chain: ``node`` is what the device reads (a limiter where there is one), ``files`` the paths top first.

    ``format`` is that of the first file.
    """

    device: str
    node: str
    files: tuple[str, ...]
    format: str
    readonly: bool


async def attached(session: Session) -> dict[str, Attached]:
    """Every block device that has a medium, by device id."""
    paths = await open_paths(session)
    found = {}
    for block in records(await session.execute("query-block")):
        inserted = block.get("inserted")
        device = _device_id(text(block, "qdev", ""))
        if inserted is not None and device:
            top = record(inserted)
            files = tuple(dict.fromkeys(_path(name, paths) for name in _filenames(record(top["image"]))))
            kind = text(top, "drv")
            if kind in _NOT_FORMATS:
                kind = (await _drivers(session, paths)).get(files[0], "raw")
            found[device] = Attached(device, text(top, "node-name", ""), files, kind, bool(top["ro"]))
    return found


async def _drivers(session: Session, paths: Mapping[int, str]) -> dict[str, str]:
    """The format driver of each open file."""
    every = records(await session.execute("query-named-block-nodes", flat=True))
    return {_path(text(one, "file", ""), paths): text(one, "drv") for one in every if text(one, "drv") not in _NOT_FORMATS}


async def open_paths(session: Session) -> dict[int, str]:
    """The resolved paths behind the descriptors QEMU was handed, by number of their set."""
    sets = {}
    for fdset in records(await session.execute("query-fdsets")):
        names = [text(fd, "opaque", "") for fd in records(fdset["fds"])]
        path = next(filter(None, names), "")
        sets[number(fdset, "fdset-id")] = _resolved(path)
    return sets


async def open_overlay(
    session: Session, path: Path, node: str, options: Mapping[str, object], backing: str | None = None
) -> int:
    """Hand QEMU an overlay and open it as ``node``, over the node ``backing`` or with nothing behind it yet.

    ``options`` are the file node's: cache, aio, discard. Returns the number of the set its descriptor is in.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = record(await session.execute_with_fd(descriptor, "add-fd", opaque=str(path)))
    finally:
        os.close(descriptor)
    fdset = number(answer, "fdset-id")
    file = {"driver": "file", "filename": f"{_FDSET}{fdset}", **options}
    shared = {key: value for key, value in options.items() if key != "aio"}
    try:
        await session.execute(
            "blockdev-add", {"driver": "qcow2", "node-name": node, "backing": backing, "file": file, **shared}
        )
    except ControlError:
        await session.execute("remove-fd", fdset_id=fdset)
        raise
    return fdset


async def close_unused(session: Session, directory: Path, keep: frozenset[str] = frozenset()) -> list[str]:
    """Close every node of the machine's own files that no device reads through, and give up their descriptors.

    A node that is still in use (a job, a backup) stays. Returns the names of what was closed.
    """
    in_use = {file for one in (await attached(session)).values() for file in one.files}
    closed = []
    for path, node in (await nodes(session)).items():
        if Path(path).parent == directory and path not in in_use and path not in keep:
            try:
                await session.execute("blockdev-del", node_name=node)
                closed.append(node)
            except RefusedError:
                continue
    await _drop_descriptors(session, directory, in_use | keep)
    return closed


async def _drop_descriptors(session: Session, directory: Path, keep: frozenset[str] | set[str]) -> None:
    for fdset, path in (await open_paths(session)).items():
        if path.endswith(".qcow2") and Path(path).parent == directory and path not in keep:
            await session.execute("remove-fd", fdset_id=fdset)


async def nodes(session: Session, disk: str = "") -> dict[str, str]:
    """The format node that reads each open file, by path; where several disks share a file, the node of ``disk``."""
    paths = await open_paths(session)
    found: dict[str, str] = {}
    for info in records(await session.execute("query-named-block-nodes", flat=True)):
        path, node = _path(text(info, "file", ""), paths), text(info, "node-name", "")
        mine = disk and (node == disk or node.startswith(f"{disk}-"))
        if text(info, "drv") not in _NOT_FORMATS and (mine or path not in found):
            found[path] = node
    return found


def node_of(path: str) -> str:
    """The name a machine's own file is opened under: the file's name without its ending."""
    return Path(path).stem


def _resolved(path: str) -> str:
    return os.path.realpath(path) if path.startswith("/") else path


def _filenames(image: Mapping[str, object]) -> list[str]:
    names = [text(image, "filename")]
    while "backing-image" in image:
        image = record(image["backing-image"])
        names.append(text(image, "filename"))
    return names


def _path(name: str, paths: Mapping[int, str]) -> str:
    """The path behind a file name as QEMU prints it: plain, a set of descriptors, or a JSON description of a node."""
    if name.startswith("json:"):
        described = record(json.loads(name.removeprefix("json:")))
        while "filename" not in described and "file" in described:
            described = record(described["file"])
        name = text(described, "filename", "")
    if not name.startswith(_FDSET):
        return name
    return paths.get(int(name.removeprefix(_FDSET)), "")


def _device_id(qdev: str) -> str:
    """``/machine/peripheral/disk0-dev/virtio-backend`` and ``disk0-dev`` are both ``disk0-dev``."""
    if qdev.startswith("/machine/peripheral/"):
        return qdev.split("/")[3]
    return "" if qdev.startswith("/") else qdev
