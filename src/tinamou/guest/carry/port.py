"""A line of bytes between a guest and this process: a virtio-serial port, plugged in for one copy and taken out again.

The agent's own line takes a third of a microsecond of an emulated guest's time for every byte, as JSON and base64; this one
a fiftieth of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

from tinamou.control.answers import records, text
from tinamou.control.commands import device_del, getfd
from tinamou.control.monitors import connect_qmp
from tinamou.control.session import RefusedError, Session
from tinamou.errors import ControlError, StateError
from tinamou.facts import files
from tinamou.system.turns import Turn

__all__ = ["NAME", "kept_out", "plugged", "surely"]

NAME = "org.tinamou.copy.0"
"""The port's name in the guest."""

_ID, _LINE = "tinamou-copy", "tinamou-copy-line"
_ANSWER_SECONDS = 15.0


@contextlib.asynccontextmanager
async def plugged(directory: str) -> AsyncIterator[socket.socket | None]:
    """The host's end of a new port of the machine whose files are in ``directory``.

    None where there is no such machine, QEMU cannot plug one in now, or another copy has it: a machine has room for one.
    """
    turn = Turn(_lock(directory))
    if not directory or not turn.take():
        yield None
        return
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            there = await _plug(directory, theirs)
        yield ours if there else None
    finally:
        ours.close()
        await surely(_unplug(directory))
        turn.give()


@contextlib.asynccontextmanager
async def kept_out(directory: str, session: Session) -> AsyncIterator[None]:
    """The machine without such a port, while its state is saved. Raises StateError while something is copied."""
    copied = Path(_lock(directory)).exists()  # noqa: ASYNC240 (a look)
    turn = Turn(_lock(directory))
    if not turn.take():
        raise StateError(
            "the state of the machine cannot be saved now",
            why=f"process {turn.holder()} copies files into it or out of it",
            fix="try again when that has ended",
        )
    try:
        if copied:
            await _remove(session)
        yield
    finally:
        turn.give()


def _lock(directory: str) -> str:
    return f"{directory}/{files.COPYING}"


async def _plug(directory: str, end: socket.socket) -> bool:
    """Whether QEMU has room for a port and took it. Raises ControlError when it does not answer."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS), await connect_qmp(directory) as session:
            await _remove(session)
            await getfd(session, end.fileno(), _LINE)
            backend = {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": _LINE}}, "server": False}}
            await session.execute("chardev-add", {"id": _LINE, "backend": backend})
            await session.execute("device_add", {"driver": "virtserialport", "id": _ID, "chardev": _LINE, "name": NAME})
            return True
    except RefusedError:
        return False
    except TimeoutError:
        why = f"it said nothing for {_ANSWER_SECONDS:g} s"
        raise ControlError("QEMU did not plug in a port for the copy", why=why, fix="is the machine paused?") from None


async def _remove(session: Session) -> None:
    """Take the port out, one that an earlier process left behind too. Raises ControlError."""
    there = records(await session.execute("qom-list", path="/machine/peripheral"))
    if any(text(one, "name") == _ID for one in there):
        await device_del(session, _ID, timeout=_ANSWER_SECONDS)
    lines = records(await session.execute("query-chardev"))
    if any(text(one, "label") == _LINE for one in lines):
        await session.execute("chardev-remove", id=_LINE)


async def _unplug(directory: str) -> None:
    """A QEMU that is gone has no port; one that does not answer keeps it until the next copy."""
    with contextlib.suppress(ControlError, OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_SECONDS), await connect_qmp(directory) as session:
            await _remove(session)


async def surely(work: Coroutine[object, object, None]) -> None:
    """Do it to its end, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
