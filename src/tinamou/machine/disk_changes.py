"""Changing a machine's disks while its guest uses them: size, limits, the disc in a drive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tinamou.control import RefusedError, Session
from tinamou.control.answers import records
from tinamou.control.commands import add_fd
from tinamou.errors import StateError
from tinamou.images.chain import read_layer
from tinamou.images.offline import changed
from tinamou.machine.disks import opened
from tinamou.parts.disk import numbered
from tinamou.snapshots.graph import attached, block_graph
from tinamou.snapshots.history import History
from tinamou.snapshots.layers import read_forest
from tinamou.snapshots.machine_disks import Disks
from tinamou.spec import load_spec
from tinamou.state.folder import image_of
from tinamou.state.record import Record
from tinamou.system.closing import Closing
from tinamou.units import Size

__all__ = ["change_disc", "limit", "listed", "resize"]


async def listed(record: Record) -> list[dict[str, object]]:
    """Every disk with the file it is written to, the depth of its chain and its virtual size in bytes; then the drives.

    A drive has the disc that is in it, or an empty ``file``.
    """
    async with opened(record, "disk ls") as (disks, history):
        rows: list[dict[str, object]] = []
        for name, disk in history.present.items():
            forest = read_forest(disks, history, name)
            top = forest.layers[disk.top]
            size = int(top.header.size) if top.header else top.length
            used = sum(disks.path(file).stat().st_blocks * 512 for file in forest.chain(disk.top) if file in forest.below)
            rows.append({"name": name, "file": disk.top, "files": len(forest.chain(disk.top)), "size": size, "used": used})
        rows.sort(key=lambda row: int(str(row["name"]).removeprefix("disk")))
        return [*rows, *(_drive(name, disc) for name, disc in (await _discs(record, disks.session)).items())]


async def _discs(record: Record, session: Session | None) -> dict[str, str]:
    """Every optical drive of a machine and the path of the disc in it, as it runs or as it will start."""
    if session is None:
        first = 1 if image_of(record).disk else 0
        there = numbered(load_spec(record.spec).disk, first)
        own = {"disk0": image_of(record).disk} if image_of(record).format == "iso" else {}
        return own | {f"disk{number}": disk.path for number, disk in there if disk.interface == "cdrom"}
    graph = await block_graph(session)
    drives = [device.removesuffix("-dev") for device in await _drives(session) if device.endswith("-dev")]
    discs = {name: graph.devices.get(f"{name}-dev") for name in sorted(drives)}
    return {name: disc.files[0] if disc and disc.files else "" for name, disc in discs.items()}


def _drive(name: str, disc: str) -> dict[str, object]:
    try:
        state = os.stat(disc) if disc else None  # noqa: PTH116
    except OSError:
        state = None
    size, used = (state.st_size, state.st_blocks * 512) if state else (0, 0)
    return {"name": name, "file": disc, "files": int(bool(disc)), "size": size, "used": used}


async def resize(record: Record, name: str, size: Size) -> None:
    """Make a disk larger by whole sectors; a running guest sees it at once. Raises StateError for less, ImageError."""
    size = size.whole
    async with opened(record, "disk resize") as (disks, history):
        _known(history, name)
        top = history.disks[name]
        from tinamou.images.importing import refuse_fixed

        layer = read_layer(disks.path(top.top), top.format)
        now = int(layer.header.size) if layer.header else layer.length
        if size < now:
            raise StateError(f"{name} is {Size(now)} large; making it smaller would cut off its end", fix="choose more")
        refuse_fixed(disks.path(top.top), top.format)
        if disks.session is None:
            file = str(disks.path(top.top))
            argv = [disks.qemu_img, "resize", "-f", top.format, file, str(int(size))]
            await changed(argv, f"resizing {name}", read_forest(disks, history, name).files(top.top), file)
            return
        from tinamou.machine.calls import widen

        widen(record, int(size))
        node = (await attached(disks.session))[top.device].node
        await disks.session.execute("block_resize", {"node-name": node, "size": int(size)})


async def limit(record: Record, name: str, *, iops: int = 0, bandwidth: int = 0) -> None:
    """Limit a running machine's disk to requests and bytes a second, 0 for no limit. Raises StateError, ControlError."""
    async with opened(record, "disk limit") as (disks, history):
        _known(history, name)
        session = _running(disks)
        limits = {"iops-total": iops, "bps-total": bandwidth}
        try:
            await session.execute("qom-set", path=f"/objects/{name}-limits", property="limits", value=limits)
        except RefusedError:
            zero = dict.fromkeys(("bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
            request = {"id": await _qdev(session, history.disks[name].device), "bps": bandwidth, "iops": iops, **zero}
            await session.execute("block_set_io_throttle", request)


async def change_disc(record: Record, name: str, path: Path | None) -> None:
    """Put another disc into a running machine's drive, or take it out. Raises StateError, ImageError, ControlError."""
    from tinamou.images.inspect import inspect_image

    async with opened(record, "disk insert or eject") as (disks, _):
        session = _running(disks)
        device = f"{name}-dev"
        if device not in await _drives(session):
            raise StateError(f"{name} is not an optical drive", fix="start the machine with a disk of interface cdrom")
        facts = inspect_image(path) if path else None
        await session.execute("blockdev-open-tray", id=device, force=True)
        await _take_disc_out(session, device)
        if facts:
            await _insert(session, device, name, facts.disk)
        await session.execute("blockdev-close-tray", id=device)


async def _take_disc_out(session: Session, device: str) -> None:
    """Leave the drive empty, and nothing of the disc in QEMU."""
    graph = await block_graph(session)
    if device not in graph.devices:
        return
    disc = graph.devices[device]
    await session.execute("blockdev-remove-medium", id=device)
    await session.execute("blockdev-del", node_name=disc.top)
    others = {file for name, one in graph.devices.items() if name != device for file in one.files}
    for fdset, path in graph.descriptors.items():
        if path in disc.files and path not in others:
            await session.execute("remove-fd", fdset_id=fdset)


async def _insert(session: Session, device: str, name: str, path: str) -> None:
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        fdset = await add_fd(session, descriptor, note=path)
    node = f"{name}-disc{fdset}"
    leaf = {"node-name": f"fd{fdset}-{name}", "filename": f"/dev/fdset/{fdset}"}
    file = {"driver": "file", **leaf, "read-only": True}
    await session.execute("blockdev-add", {"driver": "raw", "node-name": node, "read-only": True, "file": file})
    await session.execute("blockdev-insert-medium", {"id": device, "node-name": node})


async def _qdev(session: Session, device: str) -> str:
    """The name of the object that holds a device's back end, which for virtio is a child of the device."""
    blocks = records(await session.execute("query-block"))
    return next((str(one["qdev"]) for one in blocks if device in str(one.get("qdev", "")).split("/")), device)


async def _drives(session: Session) -> Sequence[str]:
    """The ids of devices whose medium can be changed."""
    blocks = records(await session.execute("query-block"))
    return [str(one.get("qdev", "")).removeprefix("/machine/peripheral/") for one in blocks if one.get("removable")]


def _known(history: History, name: str) -> None:
    if name not in history.present:
        fix = f"it has: {', '.join(history.present)}"
        raise StateError(f"the machine has no disk {name} that could be changed", fix=fix)


def _running(disks: Disks) -> Session:
    if disks.session is None:
        raise StateError("the machine is off", fix="start it first; what it starts with is in its description")
    return disks.session
