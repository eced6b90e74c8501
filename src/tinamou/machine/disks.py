"""A machine's disks while it runs and after: the way in for everything that changes them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

from tinamou import late
from tinamou.control import Session, connect_qmp
from tinamou.errors import ImageError, StateError, if_full
from tinamou.facts import files
from tinamou.images.chain import read_layer
from tinamou.images.progress import Progress, silent
from tinamou.machine.chains import existing_chains, first_number, keys_of
from tinamou.machine.turns import turn
from tinamou.parts.disk import DiskSpec, numbered
from tinamou.parts.disk.nodes import file_options
from tinamou.snapshots.graph import Attached, BlockGraph, attached, block_graph, driver_of
from tinamou.snapshots.history import DiskEntry, History, load, save
from tinamou.snapshots.machine_disks import Disks, listed_disks, record_disks
from tinamou.snapshots.orphans import is_suspended
from tinamou.spec import load_spec
from tinamou.state.folder import image_of, plan_data
from tinamou.state.record import Record
from tinamou.system.qcow2 import read_header

__all__ = ["FOR_A_COPY", "held", "known_disks", "opened"]

FOR_A_COPY = "clone"
"""The schedule of a snapshot that is there while something is copied from it, and no longer."""


@contextlib.asynccontextmanager
async def held(record: Record, what: str, *, progress: Progress = silent) -> AsyncIterator[Disks]:
    """A machine's disks, which are nobody else's to change, with its QEMU's monitor while it runs; nothing is put right.

    ``what`` is what others are told is being done. Raises StateError, ControlError.
    """
    if is_suspended(record):
        why = "the memory it was saved with belongs to its disks as they are"
        raise StateError(f"machine {record.name} is suspended", why=why, fix=f"tinamou resume {record.name}")
    async with contextlib.AsyncExitStack() as stack:
        record = await stack.enter_async_context(turn(record, what))
        session = None
        if record.running:
            connecting = connect_qmp(record.directory, alive=lambda: record.running)
            session = await stack.enter_async_context(await connecting)
        try:
            yield Disks(record.path.resolve(), record.uid, session, keys=keys_of(record), progress=progress)
        except OSError as error:
            why = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
            fix = if_full(why, "do it again; what was begun is put right first")
            raise StateError(f"the disks of {record.name} cannot be worked on", why=why, fix=fix) from error


@contextlib.asynccontextmanager
async def opened(record: Record, what: str, *, progress: Progress = silent) -> AsyncIterator[tuple[Disks, History]]:
    """As `held`, with the history made true and complete; the way in for everything that changes disks."""
    from tinamou.snapshots.reconcile import put_right

    async with held(record, what, progress=progress) as disks:
        graph = await _graph(disks)
        found = load(disks.directory)
        before = await put_right(disks, found)
        graph = graph if found.intent is None else None
        history = await known_disks(record, disks, before, graph)
        if history != before:
            save(disks.directory, history)
        if left := [one.number for one in history.snapshots if one.schedule == FOR_A_COPY]:
            from tinamou.snapshots.merge import forget, tidy

            for number in left:  # whoever copied from it was killed: it is our turn
                history = forget(disks, history, str(number))
            history, graph = await tidy(disks, history), None
        yield late.replace(disks, options=_options(record, history), graph=graph), history


async def _graph(disks: Disks) -> BlockGraph | None:
    """QEMU's block graph; None while the machine is off, or where a job that was left over changes it."""
    from tinamou.snapshots.jobs import drop_orphans

    if disks.session is None:
        return None
    graph, ended = await asyncio.gather(block_graph(disks.session), drop_orphans(disks.session))
    return None if ended else graph


async def known_disks(record: Record, disks: Disks, history: History, graph: BlockGraph | None = None) -> History:
    """The history with every disk the machine has now; ``graph`` is QEMU's where it has just been asked for."""
    listed = listed_disks(record)
    if disks.session is not None:
        return record_disks(history, await _running_disks(disks, disks.session, history.present, graph), listed)
    try:
        return record_disks(history, _resting_disks(record, disks), listed)
    except ImageError:
        if history.disks:
            return history
        raise


async def _running_disks(
    disks: Disks, session: Session, known: Mapping[str, DiskEntry], graph: BlockGraph | None
) -> dict[str, DiskEntry]:
    """Every disk the guest can write to, as QEMU has it open."""
    found = {}
    for device, one in (graph.devices if graph else await attached(session)).items():
        name = device.removesuffix("-dev")
        if not one.readonly and one.files and device != name:
            found[name] = known.get(name) or await _disk_of(disks, session, one)
    return found


async def _disk_of(disks: Disks, session: Session, one: Attached) -> DiskEntry:
    floor, driver = Path(one.files[-1]), await driver_of(session, one.top)
    kind = driver if len(one.files) == 1 else read_header(Path(one.files[-2])).backing_format
    return DiskEntry(one.device, disks.name(one.files[0]), driver, disks.name(str(floor)), read_layer(floor, kind).format)


def _resting_disks(record: Record, disks: Disks) -> dict[str, DiskEntry]:
    """The same from spec and files, for a machine that is off."""
    image = image_of(record)
    spec = load_spec(record.spec)
    chains = existing_chains(spec, image, disks.directory)
    writable = {f"disk{n}" for n, disk in numbered(spec.disk, 1 if image.disk else 0) if not disk.readonly}
    writable |= {"disk0"} if image.disk else set()
    return {
        name: DiskEntry(f"{name}-dev", disks.name(c[0].path), c[0].format, disks.name(c[-1].path), c[-1].format)
        for name, c in chains.items()
        if name in writable
    }


def _options(record: Record, history: History) -> dict[str, Mapping[str, object]]:
    """How the overlays of each disk read and write: like the disk's first file."""
    by_name = {f"disk{number}": spec for number, spec in numbered(load_spec(record.spec).disk, first_number(record))}
    settled = {name: _with_aio(by_name.get(name, DiskSpec(path="image")), record, name) for name in history.disks}
    return {name: cast("Mapping[str, object]", file_options(options)) for name, options in settled.items()}


def _with_aio(options: DiskSpec, record: Record, disk: str) -> DiskSpec:
    """The disk's options with ``aio`` as the plan of its last start settled it."""
    if options.aio != "auto":
        return options
    elements = plan_data(record)["elements"] if record.file(files.PLAN).exists() else []
    nodes = (one["props"]["file"] for one in elements if re.fullmatch(rf"{disk}(\D.*)?", str(one["props"].get("node-name"))))
    ways = [file["aio"] for file in nodes if isinstance(file, dict) and "aio" in file]
    return late.replace(options, aio=ways[-1] if ways else "threads")
