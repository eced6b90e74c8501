"""Giving a machine another disk and taking one away, while it runs where it has a hot-plug slot for it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinamou.blueprint import Contribution, Element, HandOver, Plan
from tinamou.blueprint.stored import plain
from tinamou.control import Session
from tinamou.control.answers import record as as_record
from tinamou.control.answers import records
from tinamou.control.commands import add_fd, device_del
from tinamou.errors import ControlError, PrepareError, StateError
from tinamou.launch.handover import FDSET, properties
from tinamou.machine.disks import image_of, opened, refuse_shared
from tinamou.machine.starting import facts_again
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.planner import disk_alone
from tinamou.prepare.apply import apply
from tinamou.snapshots.graph import block_graph
from tinamou.snapshots.history import History, Intent, save
from tinamou.snapshots.machine_disks import Disks
from tinamou.snapshots.merge import drop_disk
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state.record import Record, write

__all__ = ["UNPLUG_SECONDS", "plug", "unplug"]

UNPLUG_SECONDS = 30.0


async def plug(record: Record, wish: DiskSpec) -> str:
    """Give a machine a disk: at once while it runs, else from its next start on; its name.

    Raises StateError for a running machine without a free hot-plug slot, PlanError, ImageError, PrepareError, ControlError;
    nothing has changed then.
    """
    async with opened(record) as (disks, history):
        spec = load_spec(record.spec)
        number, port = _next_number(spec, record, history), await _free_port(disks, spec, record)
        path = str(Path(wish.path).absolute()) if wish.path else ""  # noqa: ASYNC240
        more = dataclasses.replace(wish, path=path, number=number, port=port)
        spec = dataclasses.replace(spec, disk=(*spec.disk, more))
        facts, name = facts_again(record, spec), f"disk{number}"
        refuse_shared({name: facts.chains[name]} if name in facts.chains and not more.readonly else {})
        alone = disk_alone(spec, facts, number)
        save(disks.directory, dataclasses.replace(history, intent=Intent("disk", {"disk": name})))
        write(dataclasses.replace(record, spec=dump_spec(spec)))
        try:
            if disks.session is not None:
                await _plug_in(record, disks.session, alone)
        except BaseException:
            write(record)
            drop_disk(disks, history, name)
            raise
        save(disks.directory, dataclasses.replace(history, intent=None))
        return name


async def unplug(record: Record, name: str, *, seconds: float = UNPLUG_SECONDS, force: bool = False) -> None:
    """Take a disk away; a running guest gives it back first, within so many ``seconds``.

    Files of the machine's own that no snapshot needs are removed with it, a file of the user's stays. What was written to
    such a one since its first snapshot lies in the machine's folder: it goes only with ``force``. Raises StateError,
    ControlError; the disk is still there then.
    """
    async with opened(record) as (disks, history):
        spec = load_spec(record.spec)
        there = {f"disk{number}": dataclasses.replace(one, number=number) for number, one in _with_numbers(spec, record)}
        if name not in there:
            fix = f"it has: {', '.join(there)}" if there else "it has none beside its image's"
            raise StateError(f"{record.name} has no disk {name} that could be taken away", fix=fix)
        entry = history.present.get(name)
        if entry and entry.floor.startswith("/") and entry.top != entry.floor and not force:
            what = f"what was written to {name} since its first snapshot is not in {entry.floor}"
            fix = f"copy it: qemu-img convert -O qcow2 {disks.path(entry.top)} COPY; then tinamou disk rm --force"
            raise StateError(what, why="it lies in the machine's folder, and would be removed", fix=fix)
        if disks.session is not None:
            await _take_out(record, disks.session, name, there[name], seconds)
        kept = tuple(one for key, one in there.items() if key != name)
        save(disks.directory, dataclasses.replace(history, intent=Intent("disk", {"disk": name})))
        write(dataclasses.replace(record, spec=dump_spec(dataclasses.replace(spec, disk=kept))))
        drop_disk(disks, history, name)


def _with_numbers(spec: MachineSpec, record: Record) -> list[tuple[int, DiskSpec]]:
    return list(numbered(spec.disk, 1 if image_of(record).disk else 0))


def _next_number(spec: MachineSpec, record: Record, history: History) -> int:
    """A number no disk has, nor one that a snapshot still knows."""
    known = {int(name.removeprefix("disk")) for name in history.disks}
    image = {0} if image_of(record).disk else set()
    return max([-1, *known, *image, *(number for number, _ in _with_numbers(spec, record))]) + 1


async def _free_port(disks: Disks, spec: MachineSpec, record: Record) -> int | None:
    """The first hot-plug slot nothing sits in; None for a machine that is off and has none. Raises StateError."""
    ports = _ports(record)
    occupied = {one.port for one in spec.disk}
    if disks.session is not None:
        buses = await _occupied(disks.session)
        occupied |= {number for number, bus in ports.items() if bus in buses}
    free = [number for number in ports if number not in occupied]
    if free or disks.session is None:
        return free[0] if free else None
    why = f"all {len(ports)} are taken" if ports else "it was started without any"
    raise StateError(
        f"{record.name} has no free hot-plug slot", why=why, fix="stop it first, or have more of them: devices.hotplug"
    )


def _ports(record: Record) -> dict[int, str]:
    """The buses of the hot-plug slots the machine was started with, by number."""
    devices = [element["props"] for element in _kept_plan(record)["elements"]]
    return {int(one["slot"]): str(one["id"]) for one in devices if one.get("driver") == "pcie-root-port"}


def _kept_plan(record: Record) -> dict[str, Any]:
    try:
        return dict(json.loads(record.file("plan.json").read_text()))
    except (OSError, ValueError) as error:
        fix = f"tinamou stop {record.name}, tinamou start {record.name}"
        raise StateError(f"it is not written down how {record.name} was started", why=repr(error), fix=fix) from error


async def _occupied(session: Session) -> set[str]:
    """The ids of bridges that something sits behind."""
    found: set[str] = set()
    for bus in records(await session.execute("query-pci")):
        for device in records(bus["devices"]):
            if as_record(device.get("pci_bridge", {})).get("devices"):
                found.add(str(device.get("qdev_id", "")))
    return found


async def _plug_in(record: Record, session: Session, alone: Contribution) -> None:
    """Make what has to be made, hand it over, and plug; taken back in reverse where a step fails."""
    apply(alone.steps, Path(record.directory))
    async with contextlib.AsyncExitStack() as undo:
        names: dict[str, str] = {}
        for step in alone.steps:
            if isinstance(step, HandOver) and step.access in ("read", "write"):
                names[step.path] = await _hand(session, step, undo)
        for element in alone.elements:
            await _add(session, element, names, undo)
        undo.pop_all()
    kept, fresh = _kept_plan(record), plain(Plan("", "", "", "", "", alone.elements, (), alone.steps))
    merged = {key: [*kept[key], *fresh[key]] for key in ("elements", "steps")}
    record.file("plan.json").write_text(json.dumps({**kept, **merged}))


async def _hand(session: Session, step: HandOver, undo: contextlib.AsyncExitStack) -> str:
    try:
        descriptor = os.open(step.path, (os.O_RDWR if step.access == "write" else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise PrepareError(f"{step.path} cannot be opened", why=error.strerror or str(error)) from error
    try:
        fdset = await add_fd(session, descriptor, note=step.path)
    finally:
        os.close(descriptor)
    undo.push_async_callback(_quietly, session, "remove-fd", {"fdset-id": fdset})
    return f"{FDSET}{fdset}"


_ADD = {"object": "object-add", "blockdev": "blockdev-add", "device": "device_add"}
_REMOVE = {"object": ("object-del", "id"), "blockdev": ("blockdev-del", "node-name"), "device": ("device_del", "id")}


async def _add(session: Session, element: Element, names: Mapping[str, str], undo: contextlib.AsyncExitStack) -> None:
    props: dict[str, object] = dict(properties(element, {}, names))
    if props.get("qom-type") == "secret":
        data = base64.b64encode(Path(str(props.pop("file"))).read_bytes())  # noqa: ASYNC240
        props |= {"data": data.decode(), "format": "base64"}
    await session.execute(_ADD[element.kind], props)
    command, key = _REMOVE[element.kind]
    undo.push_async_callback(_quietly, session, command, {key: element.id})


async def _quietly(session: Session, command: str, arguments: Mapping[str, object]) -> None:
    with contextlib.suppress(ControlError, TimeoutError):
        await session.execute(command, arguments, timeout=10.0)


async def _take_out(record: Record, session: Session, name: str, disk: DiskSpec, seconds: float) -> None:
    """Have the guest give the disk back, then close all that was behind it."""
    graph = await block_graph(session)
    there = graph.devices.get(f"{name}-dev")
    if there is not None and disk.port is None:
        why = "it does not sit in a hot-plug slot"
        raise StateError(f"{name} cannot be taken from a running machine", why=why, fix=f"tinamou stop {record.name} first")
    if there is not None:
        await device_del(session, f"{name}-dev", seconds)
        if disk.interface in ("scsi", "cdrom"):
            await device_del(session, f"{name}-bus", seconds)
    mine = [node for node in (f"{name}-limit", *graph.files) if node == name or node.startswith(f"{name}-")]
    for node in sorted(mine, key=lambda node: _depth(node, there.files if there else (), graph.files)):
        await _quietly(session, "blockdev-del", {"node-name": node})
    for object_id in (f"{name}-io", f"{name}-limits", f"{name}-key"):
        await _quietly(session, "object-del", {"id": object_id})
    files = {graph.files[node] for node in mine if node in graph.files}
    for fdset, path in graph.descriptors.items():
        others = {file for device, one in graph.devices.items() if device != f"{name}-dev" for file in one.files}
        if path in files - others:
            await _quietly(session, "remove-fd", {"fdset-id": fdset})
    kept = _kept_plan(record)
    own = (name, *mine, f"{name}-dev", f"{name}-bus", f"{name}-io", f"{name}-limits", f"{name}-key")
    elements = [one for one in kept["elements"] if one["props"].get("id", one["props"].get("node-name")) not in own]
    steps = [step for step in kept["steps"] if step.get("path") not in files]
    record.file("plan.json").write_text(json.dumps({**kept, "elements": elements, "steps": steps}))


def _depth(node: str, files: tuple[str, ...], read: Mapping[str, str]) -> int:
    """How far from the top a node is: those above are closed first."""
    path = read.get(node, "")
    return files.index(path) if path in files else -1
