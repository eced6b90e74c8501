"""The side to which a machine moves: `tinamou receive`, which the other side starts here and speaks to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any

from tinamou.blueprint.stored import plan_from
from tinamou.errors import StateError, TinamouError
from tinamou.fleet import hosts, lines
from tinamou.fleet.frames import Frames
from tinamou.fleet.lines import Listeners
from tinamou.images import store
from tinamou.machine import arriving
from tinamou.machine.arriving import Arrival, Offer
from tinamou.machine.ends import Direct
from tinamou.machine.exporting import BOOTS
from tinamou.machine.reconcile import reconcile
from tinamou.state import machines, moves
from tinamou.state.record import Record
from tinamou.system.loop_thread import in_thread

__all__ = ["go", "on_stdio", "received", "told", "whose"]


async def told(frames: Frames, work: Coroutine[Any, Any, None]) -> None:
    """Do this side's part. Raises TinamouError, which the other side has been told."""
    try:
        async with frames.beating():
            await work
    except TinamouError as error:
        await frames.fail(error)
        raise


async def received(frames: Frames) -> None:
    """Take a machine in. Raises TinamouError; the machine is not here then.

    Where the line is lost after it was ready it stays, standing still, until the other side is heard again.
    """
    reconcile()
    with contextlib.ExitStack() as stack:
        offer = await _offer(frames, stack)
        async with arriving.arriving(offer) as here:
            where: dict[str, Any] = {"paths": here.ends.paths, "why": here.ends.why}
            await frames.say("open", **where, notes=list(here.notes), here=sorted(offer.here))
            sample = (await frames.hear("sample"))[1]
            hearing = asyncio.ensure_future(frames.hear("go"))
            try:
                if sample:
                    await frames.meanwhile(arriving.tried(here, sample), hearing)
                await frames.say("tried")
                record = await frames.meanwhile(arriving.finish(here, _files(offer, here)), hearing)
                await frames.say("ready")
                await hearing
            finally:
                hearing.cancel()
            await _run(frames, record, here)


async def _run(frames: Frames, record: Record, here: Arrival) -> None:
    record, event = await arriving.let_run(record, here.session)
    await frames.say("runs", running=event is not None)
    note = await arriving.settle_in(record, here.session) if event else ""
    await frames.say("settled", note="; ".join(filter(None, [note, _unknown(record)])))


def _unknown(record: Record) -> str:
    """What must be said of a machine that is described as replicated to a host that is not known here."""
    to = str(record.spec.get("replicate", {}).get("to", ""))
    if not to or to in [one.name for one in hosts.every()]:
        return ""
    fix = f"there tinamou host add {to}, or tinamou set {record.name} replicate.to=HOST"
    return f"it is to be replicated to {to}, which {os.uname().nodename} does not know: {fix}"


def _files(offer: Offer, here: Arrival) -> list[Path]:
    return [here.record.file(f"{disk}.{kind}") for disk, (kind, _, _) in offer.copied.items()]


async def _offer(frames: Frames, stack: contextlib.ExitStack) -> Offer:
    """What the other side offers, which is told first what is here of it. Raises StateError for what is no offer."""
    asked, _ = await frames.hear("files")
    try:
        wanted = {(int(size), str(sum)) for size, sum in asked["files"]}
        address, peer = str(asked["address"]), str(asked["peer"])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_machine(error) from error
    found, why = None, ""
    try:
        found = lines.listeners(address, peer) if address else None
    except OSError as error:
        why = f"{address}: {error.strerror or error}"
    if found is not None:
        stack.callback(found.close)
    known = await in_thread(store.by_content, wanted)
    await frames.say("has", sums=list(known), ports=list(found.ports) if found else [], why=why)
    draining = asyncio.ensure_future(lines.drained(found) if found else asyncio.sleep(0))
    try:
        data, whole = await frames.hear("offer")
    finally:
        draining.cancel()
        await asyncio.wait([draining])
    try:
        return _read(data, whole, {sum: path for sum, (path, _) in known.items()}, found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _no_machine(error) from error


def _no_machine(error: Exception) -> StateError:
    return StateError("the other host offers what is no machine", why=repr(error)[:200])


def _read(data: Mapping[str, Any], whole: bytes, known: Mapping[str, Path], found: Listeners | None) -> Offer:
    """Raises KeyError, TypeError, ValueError, AttributeError, OverflowError."""
    disks = {str(name): (str(kind), int(size), int(used)) for name, (kind, size, used) in data["disks"].items()}
    if any(kind not in ("qcow2", "raw") or not name.isalnum() for name, (kind, _, _) in disks.items()):
        raise ValueError("a disk of an unknown kind")
    if not str(data["token"]).isalnum():
        raise ValueError("a move without a name")
    key = str(data["key"])
    if key and (found is None or not re.fullmatch("[0-9a-f]{64}", key)):
        raise ValueError("a key that is none, or for nothing")
    shared = {str(name): str(path) for name, path in data.get("outside", {}).items() if name in disks}
    return Offer(
        name=str(data["name"]),
        host=str(data["host"]),
        token=str(data["token"]),
        generation=int(data["generation"]),
        created=float(data["created"]),
        plan=plan_from(data["plan"]),
        disks=disks,
        whole=whole,
        boots={field: known[data["boots"][field]] for field in BOOTS if field in data["boots"]},
        here=frozenset(name for name, path in shared.items() if moves.mark(path, str(data["token"])).is_file()),
        direct=Direct(found.disks, found.memory, found.peer, key) if key and found else None,
    )


async def go(token: str) -> dict[str, Any]:
    """Its source has left: the machine that came by the move of that name is this host's. Raises StateError."""
    record, event = await arriving.let_run(arriving.of_token(token))
    return {"name": record.name, "running": event is not None}


def whose(token: str) -> dict[str, Any]:
    """What the source of the move of that name says: it has ``left``, ``stays``, or is ``unknown`` here."""
    for record in machines.machines():
        if token and moves.token_of(record) == token and moves.phase(record) not in (moves.ARRIVING, moves.READY):
            if moves.phase(record) == moves.LEAVING and moves.attended(record):
                raise StateError(f"the move of {record.name} is under way", fix="wait for it to end")
            return {"whose": "left" if moves.phase(record) == moves.LEFT else "stays"}
    return {"whose": "unknown"}


@contextlib.asynccontextmanager
async def on_stdio() -> AsyncIterator[Frames]:
    """The line on this process's stdin and stdout."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        yield Frames(reader, writer)
    finally:
        transport.close()
