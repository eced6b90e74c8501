"""A guest's screen and keyboard over QMP: a picture taken into memory of ours, keys pressed and released."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

from tinamou.control.answers import records, text
from tinamou.control.commands import add_fd, getfd, remove_fd
from tinamou.control.session import RefusedError, Session
from tinamou.errors import ControlError
from tinamou.screen.picture import MOST_BYTES, Picture, from_ppm
from tinamou.system.closing import Closing

__all__ = ["let_in", "press", "screendump", "served_on", "serves_on"]

_PORT = "screen-port"
HOLD_SECONDS = 0.02
"""How long a key is down, and then up: a guest that reads its keyboard fifty times a second sees both."""


async def screendump(session: Session) -> Picture:
    """What the guest's first screen shows now. Raises RefusedError for a machine without one, ControlError.

    QEMU writes it as PPM, which every version does, into memory of ours that counts as its own. It may go on to write
    there: what is read once is looked at, and no more of it than a picture can have.
    """
    with Closing(os.memfd_create("screen", os.MFD_CLOEXEC)) as memory:
        theirs = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)  # a set is searched for exactly that mode
        with Closing(theirs):
            number = await add_fd(session, theirs, note="screen")
        try:
            await session.execute("screendump", filename=f"/dev/fdset/{number}")
        finally:
            with contextlib.suppress(ControlError):
                await remove_fd(session, number)
        return from_ppm(os.pread(memory, MOST_BYTES, 0))


async def served_on(session: Session, server: str) -> tuple[str, int] | None:
    """Where that VNC server of QEMU's listens by TCP, None while it does not."""
    for one in records(await session.execute("query-vnc-servers")):
        for where in records(one.get("server", [])) if one.get("id") == server else ():
            if text(where, "family") in ("ipv4", "ipv6"):
                return text(where, "host"), int(text(where, "service"))
    return None


async def serves_on(session: Session, listener: int) -> None:
    """Have QEMU's first VNC server listen on a socket it is handed, in place of where it listened. Raises ControlError."""
    await getfd(session, listener, _PORT)
    await session.execute("display-update", type="vnc", addresses=[{"type": "fd", "str": _PORT}])


async def let_in(session: Session, server: str, password: str, seconds: int) -> None:
    """Whoever has the password may look, of eight characters, from now on for so many seconds; none before may any more.

    Who is in stays. Raises ControlError, in which the password does not stand.
    """
    try:
        await session.execute("set_password", protocol="vnc", password=password, display=server)
    except RefusedError as error:
        raise ControlError("the screen's password was not taken", why=error.description) from None
    await session.execute("expire_password", protocol="vnc", time=f"+{seconds}", display=server)


async def press(session: Session, chords: Sequence[Sequence[str]], *, hold: float = HOLD_SECONDS) -> None:
    """Press keys by QEMU's names, one chord after another: all of it down in order, then up; ``hold`` seconds each.

    Cancelled, or where QEMU has refused, it leaves no key down.
    """
    for chord in chords:
        try:
            await _send(session, chord, down=True)
            await asyncio.sleep(hold)
        except BaseException:
            with contextlib.suppress(ControlError):
                await _released(session, chord)
            raise
        await _released(session, chord)
        await asyncio.sleep(hold)


async def _released(session: Session, chord: Sequence[str]) -> None:
    """Let go of the keys, also where whoever asks is cancelled meanwhile."""
    await asyncio.shield(asyncio.ensure_future(_send(session, tuple(reversed(chord)), down=False)))


async def _send(session: Session, keys: Sequence[str], *, down: bool) -> None:
    events = [{"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}} for key in keys]
    await session.execute("input-send-event", events=events)
