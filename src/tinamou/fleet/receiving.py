"""The side to which a machine moves: `tinamou receive`, which the other side starts here and speaks to."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from tinamou.blueprint.stored import plan_from
from tinamou.errors import StateError, TinamouError
from tinamou.fleet.frames import Frames
from tinamou.machine import arriving
from tinamou.machine.arriving import Arrival, Offer
from tinamou.machine.reconcile import reconcile
from tinamou.state import machines, moves
from tinamou.state.record import Record

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
    offer = await _offer(frames)
    async with arriving.arriving(offer) as here:
        await frames.say("open", disks=here.disks, memory=here.memory, notes=list(here.notes), here=sorted(offer.here))
        hearing = asyncio.ensure_future(frames.hear("go"))
        try:
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
    await frames.say("settled", note=note)


def _files(offer: Offer, here: Arrival) -> list[Path]:
    return [here.record.file(f"{disk}.{kind}") for disk, (kind, _, _) in offer.copied.items()]


async def _offer(frames: Frames) -> Offer:
    """What the other side offers. Raises StateError for what is no offer."""
    data, whole = await frames.hear("offer")
    sample = (await frames.hear("sample"))[1]
    try:
        disks = {str(name): (str(kind), int(size), int(used)) for name, (kind, size, used) in data["disks"].items()}
        if any(kind not in ("qcow2", "raw") or not name.isalnum() for name, (kind, _, _) in disks.items()):
            raise ValueError("a disk of an unknown kind")
        if not str(data["token"]).isalnum():
            raise ValueError("a move without a name")
        shared = {str(name): str(path) for name, path in data.get("outside", {}).items() if name in disks}
        seen = frozenset(name for name, path in shared.items() if moves.mark(path, str(data["token"])).is_file())
        said = {name: str(data[name]) for name in ("name", "host", "token")}
        numbers = {"generation": int(data["generation"]), "created": float(data["created"])}
        return Offer(**said, **numbers, plan=plan_from(data["plan"]), disks=disks, whole=whole, sample=sample, here=seen)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StateError("the other host offers what is no machine", why=repr(error)[:200]) from error


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
