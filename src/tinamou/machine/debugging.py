"""A debugger on a guest: QEMU's gdb server on a socket of the machine's folder, for as long as a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tinamou.control import DisconnectedError, RefusedError, Session, commands
from tinamou.control.answers import records
from tinamou.errors import ControlError, StateError
from tinamou.facts import files
from tinamou.launch.handover import listening
from tinamou.machine.connected import Connected
from tinamou.machine.encrypted import refuse
from tinamou.system.closing import Closing

__all__ = ["debugged"]

_CHARDEV = "gdb"


@contextlib.asynccontextmanager
async def debugged(machine: Connected) -> AsyncIterator[Path]:
    """The socket to which ``target remote`` leads; closed again at the end, and a machine that ran runs on.

    Whoever connects stops the machine, and may have left it so. Raises StateError, ControlError.
    """
    refuse(machine.record, "debugged")
    session = await machine.session()
    path = machine.record.file(files.GDB)
    ran = (await commands.status(session)).running
    await _opened(machine, session, path)
    await machine.hang_up()  # others have things to say, too
    try:
        yield path
    finally:
        with contextlib.suppress(DisconnectedError):
            await _closed(machine, ran=ran)
        path.unlink(missing_ok=True)


async def _opened(machine: Connected, session: Session, path: Path) -> None:
    if any(one.get("label") == _CHARDEV for one in records(await session.execute("query-chardev"))):
        fix = f"end the other one; where there is none: tinamou monitor {machine.name} --hmp 'gdbserver none'"
        raise StateError(f"{machine.name} is debugged already", fix=fix)
    try:
        listener = listening(str(path))
    except OSError as error:
        raise StateError(f"there can be no socket for gdb in the folder of {machine.name}", why=str(error)) from error
    with Closing(listener):
        await commands.getfd(session, listener, _CHARDEV)
    address = {"type": "fd", "data": {"str": _CHARDEV}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    await session.execute("chardev-add", id=_CHARDEV, backend=backend)
    told = await commands.monitor(session, f"gdbserver chardev:{_CHARDEV}")
    if "Could not" in told:
        await session.execute("chardev-remove", id=_CHARDEV)
        raise ControlError("QEMU opened no gdb server", why=told.strip())


async def _closed(machine: Connected, *, ran: bool) -> None:
    """The server takes its chardev along when it ends, in most versions."""
    session = await machine.session()
    await commands.monitor(session, "gdbserver none")
    with contextlib.suppress(RefusedError):
        await session.execute("chardev-remove", id=_CHARDEV)
    if ran and (await commands.status(session)).state in ("paused", "debug"):
        await commands.cont(session)
