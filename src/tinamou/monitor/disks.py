"""What a machine's disks have moved, what their files take on the host, and how much room is left around them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinamou.control import Session
from tinamou.control.answers import member, number, record, records, text
from tinamou.errors import ImageError
from tinamou.images.chain import read_layer
from tinamou.late import replace
from tinamou.monitor.observation import DiskObservation, Place
from tinamou.snapshots.graph import Attached, attached
from tinamou.units import Size

__all__ = ["disks_of", "place_of"]

_COUNTED = {
    "read": "rd_bytes",
    "written": "wr_bytes",
    "reads": "rd_operations",
    "writes": "wr_operations",
    "flushes": "flush_operations",
}
"""The names of the counters here and in QEMU's ``query-blockstats``."""

_BLOCK = 512
"""The unit of st_blocks (source: stat(2))."""


async def disks_of(session: Session, directory: Path, *, stopped: bool) -> tuple[DiskObservation, ...]:
    """Every disk that has a medium, by name. ``stopped`` asks for the state of each too: which one the machine waits for."""
    devices = await attached(session)
    every = records(await session.execute("query-blockstats"))
    counts = {_device(one): record(member(one, "stats")) for one in every}
    states = await _states(session) if stopped else {}
    found = []
    for device, chain in sorted(devices.items()):
        stats = counts.get(device, {})
        moved: dict[str, Any] = {field: number(stats, key, 0, least=0) for field, key in _COUNTED.items()}
        own, grow, place = await asyncio.to_thread(_on_host, chain, directory)
        seen = DiskObservation(device.removesuffix("-dev"), **moved, files=chain.files, readonly=chain.readonly)
        seen = replace(seen, allocated=own, may_grow=grow, place=place, status=states.get(device, ""))
        found.append(seen)
    return tuple(found)


async def _states(session: Session) -> dict[str, str]:
    """How each device's last request went; asked only when something is wrong, since the answer spells out every chain."""
    every = records(await session.execute("query-block"))
    return {_device(one): text(one, "io-status", "") for one in every}


def _device(one: object) -> str:
    """The id of a device as it was given to QEMU: ``/machine/peripheral/disk0-dev/virtio-backend`` is ``disk0-dev``."""
    path = text(record(one), "qdev", "")
    return path.split("/")[3] if path.startswith("/machine/peripheral/") else path


def _on_host(chain: Attached, directory: Path) -> tuple[Size, Size, Place | None]:
    """What its own files take, by how much the top one may grow, and the file system that holds it."""
    own = _takes(file for file in chain.files if Path(file).parent == directory)
    if not chain.files:
        return own, Size(0), None
    top = chain.files[0]
    return own, Size(0) if chain.readonly else _may_grow(top), place_of(top)


def _takes(paths: Iterable[str]) -> Size:
    return Size(sum(_allocated(path) for path in paths))


def _allocated(path: str) -> int:
    try:
        return os.stat(path).st_blocks * _BLOCK  # noqa: PTH116
    except OSError:
        return 0


def _may_grow(path: str) -> Size:
    """A file that has room for all the guest sees takes that much, and a little for its tables."""
    try:
        layer = read_layer(Path(path))
    except ImageError:
        return Size(0)
    most = layer.header.size if layer.header else layer.length
    return Size(max(0, most - _allocated(path)))


def place_of(path: str) -> Place | None:
    """The file system that holds a file (source: statvfs(3)); None where it cannot be asked."""
    folder = os.path.dirname(path)  # noqa: PTH120
    try:
        room, device = os.statvfs(folder), os.stat(folder).st_dev  # noqa: PTH116
    except OSError:
        return None
    return Place(device, folder, Size(room.f_bavail * room.f_frsize), Size(room.f_blocks * room.f_frsize))
