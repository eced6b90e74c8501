"""Giving a machine another disk and taking one away, while it runs where it has a hot-plug slot for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint.stored import plugged
from tinamou.control import Session, hotplug
from tinamou.control.bounds import UNPLUG_SECONDS
from tinamou.control.commands import device_del
from tinamou.control.hotplug import quietly
from tinamou.errors import StateError
from tinamou.facts import Facts
from tinamou.machine.calls import as_filtered, refuse_calls, widen
from tinamou.machine.chains import refuse_shared
from tinamou.machine.description import describe, describe_later
from tinamou.machine.disks import opened
from tinamou.machine.slots import free_for
from tinamou.machine.starting import facts_again
from tinamou.machine.turns import turn
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.planner import disk_alone
from tinamou.prepare.apply import apply
from tinamou.snapshots.graph import block_graph
from tinamou.snapshots.history import History, Intent, save
from tinamou.snapshots.merge import drop_disk
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.folder import image_of, update_plan
from tinamou.state.record import Record, read

__all__ = ["next_number", "plug", "unplug"]


async def plug(record: Record, request: DiskSpec) -> str:
    """Give a machine a disk: at once while it runs, else from its next start on; its name.

    Raises PlanError, ImageError, PrepareError, and ControlError, also for a running machine without a free hot-plug slot;
    nothing has changed then.
    """
    async with opened(record, "disk add") as (disks, history):
        record = read(record.path) or record
        spec = load_spec(record.spec)
        number, port = next_number(record, history), await free_for(record, disks.session)
        path = str(Path(request.path).absolute()) if request.path else ""  # noqa: ASYNC240
        more = late.replace(request, path=path, number=number, port=port)
        spec = late.replace(spec, disk=(*spec.disk, more))
        facts, name = facts_again(record, spec), f"disk{number}"
        if disks.session is not None:
            facts = as_filtered(record, facts)
        refuse_shared({name: facts.chains[name]} if name in facts.chains and not more.readonly else {})
        alone = disk_alone(spec, facts, number)
        save(disks.directory, late.replace(history, intent=Intent("disk", {"disk": name})))
        describe(record, lambda now: late.replace(now, disk=(*now.disk, more)))
        try:
            apply(alone.steps, record.path)
            if disks.session is not None:
                refuse_calls(record, alone)
                widen(record, more.size or _size_of(facts, name))
                await hotplug.plug(disks.session, alone, name)
                update_plan(record, lambda data: plugged(data, alone))
        except BaseException:
            describe(record, lambda now: late.replace(now, disk=tuple(one for one in now.disk if one != more)))
            drop_disk(disks, history, name)
            raise
        save(disks.directory, late.replace(history, intent=None))
        return name


def _size_of(facts: Facts, name: str) -> int:
    """The bytes the guest sees of a disk that was there; without limit where its header does not say."""
    chain = facts.chains.get(name)
    return chain[0].size or 1 << 60 if chain else 1 << 60


async def unplug(record: Record, name: str, *, seconds: float = UNPLUG_SECONDS, force: bool = False) -> None:
    """Take a disk away; a running guest gives it back first, within so many ``seconds``. One that is to come stays away.

    Files of the machine's own that no snapshot needs are removed with it, a file of the user's stays. What was written to
    such a one since its first snapshot lies in the machine's folder: it goes only with ``force``. Raises StateError,
    ControlError; the disk is still there then.
    """
    async with turn(record, "disk rm") as now:
        if name in _to_come(now):
            describe_later(now, lambda now: _without(now, record, name))
            return
    async with opened(record, "disk rm") as (disks, history):
        record = read(record.path) or record
        spec = load_spec(record.spec)
        there = {f"disk{number}": late.replace(one, number=number) for number, one in _with_numbers(spec, record)}
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
        save(disks.directory, late.replace(history, intent=Intent("disk", {"disk": name})))
        describe(record, lambda now: _without(now, record, name))
        drop_disk(disks, history, name)


def _to_come(record: Record) -> set[str]:
    """The disks it has from the next start on, of which nothing is there yet."""
    now, then = (
        {f"disk{number}" for number, _ in _with_numbers(load_spec(spec), record)} for spec in (record.spec, record.next_spec)
    )
    return then - now


def _without(spec: MachineSpec, record: Record, name: str) -> MachineSpec:
    """The description without this disk; those after it keep their numbers."""
    kept: list[DiskSpec] = []
    for place, (number, one) in enumerate(_with_numbers(spec, record)):
        if f"disk{number}" != name:
            kept.append(one if len(kept) == place else late.replace(one, number=number))
    return late.replace(spec, disk=tuple(kept))


def _with_numbers(spec: MachineSpec, record: Record) -> list[tuple[int, DiskSpec]]:
    return list(numbered(spec.disk, 1 if image_of(record).disk else 0))


def next_number(record: Record, history: History) -> int:
    """A number no disk has, none that a snapshot still knows, nor one that comes with the next start."""
    known = {int(name.removeprefix("disk")) for name in history.disks}
    image = {0} if image_of(record).disk else set()
    both = (load_spec(record.spec), load_spec(record.next_spec))
    return max([-1, *known, *image, *(number for spec in both for number, _ in _with_numbers(spec, record))]) + 1


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
        await quietly(session, "blockdev-del", {"node-name": node})
    for object_id in (f"{name}-io", f"{name}-limits", f"{name}-key"):
        await quietly(session, "object-del", {"id": object_id})
    files = {graph.files[node] for node in mine if node in graph.files}
    for fdset, path in graph.descriptors.items():
        others = {file for device, one in graph.devices.items() if device != f"{name}-dev" for file in one.files}
        if path in files - others:
            await quietly(session, "remove-fd", {"fdset-id": fdset})
    own = (name, *mine, f"{name}-dev", f"{name}-bus", f"{name}-io", f"{name}-limits", f"{name}-key")

    def without(data: dict[str, Any]) -> dict[str, Any]:
        elements = [one for one in data["elements"] if one["props"].get("id", one["props"].get("node-name")) not in own]
        return {**data, "elements": elements, "steps": [step for step in data["steps"] if step.get("path") not in files]}

    update_plan(record, without)


def _depth(node: str, files: tuple[str, ...], read: Mapping[str, str]) -> int:
    """How far from the top a node is: those above are closed first."""
    path = read.get(node, "")
    return files.index(path) if path in files else -1
