"""Taking a snapshot of all disks in one moment: one QMP transaction while the machine runs, one rename while it is off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tinamou import late
from tinamou.control import Session
from tinamou.control.commands import status
from tinamou.errors import ControlError, StateError
from tinamou.facts.files import SNAPSHOTS
from tinamou.images.chain import read_layer
from tinamou.late import dataclass
from tinamou.snapshots import extras
from tinamou.snapshots.graph import BlockGraph, Opening, attached, close_unused, node_of, open_overlays
from tinamou.snapshots.history import History, Intent, Snapshot, save, write_part
from tinamou.snapshots.machine_disks import Disks, encryption, fresh_name, write_overlay_part
from tinamou.system.closing import IfFailed
from tinamou.system.durable import PART, put_in_place
from tinamou.system.loop_thread import dropped, in_thread
from tinamou.system.qcow2 import encode_overlay

__all__ = ["Quiesce", "Taken", "create", "grow", "grown", "overlay_written", "taken"]

Quiesce = Callable[[], AbstractAsyncContextManager[bool]]
"""Enters with the guest's file systems frozen (True) or not (False), leaves with them thawed."""


@dataclass(frozen=True)
class Taken:
    """A snapshot and what it cost: ``transaction`` and ``whole`` in seconds."""

    snapshot: Snapshot
    history: History
    transaction: float
    whole: float


@asynccontextmanager
async def _as_it_is() -> AsyncIterator[bool]:
    yield False


async def create(
    disks: Disks,
    history: History,
    name: str = "",
    *,
    note: str = "",
    schedule: str = "",
    quiesce: Quiesce = _as_it_is,
) -> Taken:
    """Freeze the present state of every disk as a snapshot; the guest goes on writing to fresh overlays.

    ``history`` must be reconciled and the machine's disks locked. Raises StateError for a name that is taken or a machine
    without disks, ControlError and OSError when it cannot be done; then nothing has changed.
    """
    began = time.perf_counter()
    _check_name(history, name)
    number = history.counter + 1
    files = {disk: fresh_name(disk, number) for disk in history.present}
    shot = Snapshot(
        number=number,
        name=name or f"s{number}",
        files={disk: entry.top for disk, entry in history.present.items()},
        parent=history.current,
        created=time.time(),
        note=note,
        schedule=schedule,
    )
    intent = Intent("create", {"snapshot": late.asdict(shot), "files": files})
    written = late.replace(history, counter=number, intent=intent)
    async with IfFailed(_undo, disks, history, number, files):
        extras.keep(disks, number)
        done = await _begin(disks, written, files, quiesce, disks.graph)
    shot = late.replace(shot, state=done.state, quiesced=done.quiesced)
    after = await in_thread(save, disks.directory, taken(history, shot, files))
    return Taken(shot, after, done.seconds, time.perf_counter() - began)


async def grow(disks: Disks, history: History, *names: str, quiesce: Quiesce = _as_it_is) -> History:
    """Give the running guest fresh files to write to on these disks, without a snapshot that could be named."""
    assert disks.session is not None
    number = history.counter + 1
    files = {disk: fresh_name(disk, number) for disk in names}
    written = late.replace(history, counter=number, intent=Intent("grow", {"number": number, "files": files}))
    async with IfFailed(_undo, disks, history, number, files):
        await _begin(disks, written, files, quiesce)
    return await in_thread(save, disks.directory, grown(written, files))


def grown(history: History, files: Mapping[str, str]) -> History:
    """The history with other tops, and nothing left to do."""
    tops = {name: late.replace(history.disks[name], top=file, format="qcow2") for name, file in files.items()}
    return late.replace(history, disks={**history.disks, **tops}, intent=None)


def taken(history: History, shot: Snapshot, files: Mapping[str, str]) -> History:
    """The history after a snapshot whose overlays are ``files``."""
    counter = max(history.counter, shot.number)
    shots = (*history.snapshots, shot)
    return late.replace(grown(history, files), snapshots=shots, current=shot.number, counter=counter)


def _check_name(history: History, name: str) -> None:
    if not history.present:
        raise StateError("the machine has no disk that could be kept", why="its guest lives in memory, or only reads")
    if name and any(name in (one.name, str(one.number)) for one in history.snapshots):
        raise StateError(f"there is a snapshot {name} already", fix="choose another name, or remove that one")
    if name and (name.isdecimal() or "/" in name or len(name) > 120):
        raise StateError(
            f"{name!r} cannot be a snapshot's name", fix="a word with a letter in it, without slash, to 120 letters"
        )


@dataclass(frozen=True)
class _Switched:
    """What the switch was like: the machine's state, whether its guest held still, seconds of the transaction."""

    state: str = "off"
    quiesced: bool = False
    seconds: float = 0.0


async def _begin(
    disks: Disks, written: History, files: dict[str, str], quiesce: Quiesce, graph: BlockGraph | None = None
) -> _Switched:
    """Write down what is begun, make the overlays, and put them in front; ``graph`` is QEMU's where it is known.

    QEMU opens them while they are on their way to stable storage. Each answer of a busy QEMU takes its time, so what can be
    asked together is.
    """
    write_part(disks.directory, written)
    with contextlib.ExitStack() as stack:
        parts = {}
        for name, file in files.items():
            entry = written.disks[name]
            part = write_overlay_part(disks, file, entry.top, entry.format)
            parts[file] = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, parts[file])
        opening = asyncio.ensure_future(_open(disks, disks.session, written, files, parts, graph))
        try:
            await in_thread(put_in_place, disks.directory, [SNAPSHOTS, *parts])
            opened = await opening
        finally:
            await dropped(opening)
    return await _switch(disks.session, *opened, quiesce) if disks.session and opened else _Switched()


async def _open(
    disks: Disks,
    session: Session | None,
    history: History,
    files: dict[str, str],
    parts: Mapping[str, int],
    graph: BlockGraph | None,
) -> tuple[str, list[dict[str, object]]] | None:
    """Have QEMU, where it runs, open the overlays; the machine's state, and the actions that put them in front.

    Raises StateError when QEMU writes to other files than the history says.
    """
    if session is None:
        return None
    devices = graph.devices if graph else await attached(session)
    actions: list[dict[str, object]] = []
    openings = []
    for name, file in files.items():
        disk = history.disks[name]
        found = devices.get(disk.device)
        if found is None or not found.files or disks.name(found.files[0]) != disk.top:
            has = found.files[0] if found and found.files else "nothing"
            raise StateError(f"QEMU writes {name} to {has}, not to {disk.top}", fix="tinamou check")
        options = (disks.options or {}).get(name, {})
        more = encryption(name, read_layer(disks.path(disk.top), disk.format))
        openings.append(Opening(disks.path(file), node_of(file), options, more=more, descriptor=parts[file]))
        actions.append({"type": "blockdev-snapshot", "data": {"node": found.top, "overlay": node_of(file)}})
    _, now = await asyncio.gather(open_overlays(session, openings), status(session))
    return "running" if now.state == "running" else "paused", actions


async def _switch(session: Session, state: str, actions: list[dict[str, object]], quiesce: Quiesce) -> _Switched:
    """Put the overlays in front, all at one moment."""
    async with quiesce() as quiesced:
        began = time.perf_counter()
        await session.execute("transaction", actions=actions)
        spent = time.perf_counter() - began
    return _Switched(state, quiesced, spent)


async def _undo(disks: Disks, history: History, number: int, files: dict[str, str]) -> None:
    """Take back what was made, unless QEMU already writes to it: then the intent stays for `reconcile`."""
    session = disks.session
    if session is not None:
        try:
            await close_unused(session, disks.directory)
            writes_to = {disks.name(one.files[0]) for one in (await attached(session)).values() if one.files}
        except ControlError:
            return
        if writes_to & set(files.values()):
            return
    for file in files.values():
        disks.path(file).unlink(missing_ok=True)
        disks.path(file + PART).unlink(missing_ok=True)
    extras.drop(disks, number)
    save(disks.directory, late.replace(history, counter=number, intent=None))


def overlay_written(path: Path) -> bool:
    """Whether anything was ever written to an overlay: it is longer than when it was made, or its tables name a cluster."""
    layer = read_layer(path, "qcow2")
    header = layer.header
    assert header is not None
    fresh = encode_overlay(int(header.size), header.backing_file, header.backing_format, bytes(header.crypto[1]))[-1][0]
    if layer.length != fresh:
        return True
    with path.open("rb") as file:
        file.seek(header.l1_offset)
        return any(file.read(header.l1_size * 8))
