"""The process of a machine's unit: starts it with the host, starts it again where that is asked, ends it when told to.

It is no part of the machine: should it be killed, the machine runs on, and the next one takes it up. It stays where the
machine has ended for good, so that one that is started by hand is ended in order with the host, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable

from tinamou.errors import StateError, TinamouError
from tinamou.images.progress import Progress
from tinamou.machine import life
from tinamou.machine.autostart import Autostart, settings_of
from tinamou.machine.connected import Connected
from tinamou.machine.reconcile import reconcile
from tinamou.snapshots.orphans import is_suspended
from tinamou.state import machines
from tinamou.state.record import Record, read
from tinamou.system.loop_thread import in_thread
from tinamou.system.notify import notify
from tinamou.system.spawn import exit_code, gone

__all__ = ["attend"]

_FIRST, _LONGEST = 2.0, 300.0
"""Seconds until it is started again, doubled each time."""
_STEADY = 600.0
"""After so many seconds of running the next pause is the first one again."""
_LOOK = 2.0
"""How often a machine at rest is looked for."""
_FOREVER = 1e9

Start = Callable[[str], Awaitable[object]]


async def attend(name: str, start: Start, *, say: Progress) -> None:
    """Start the machine by ``start`` and stay until it is removed; cancelled, end it as was asked for last.

    Raises what starting raises, where it is not to be tried again.
    """
    record = machines.find(name)
    settings = settings_of(record) or Autostart()
    await asyncio.sleep(0.0 if record.running else settings.delay)
    pause = _FIRST
    while read(record.path) is not None:
        began = time.monotonic()
        fault = await _life(name, settings, start, say)
        pause = _FIRST if time.monotonic() - began > _STEADY else pause
        settings = _asked_last(record, settings, say)
        if not _rests(fault, settings):
            say(f"{name}: {fault or 'its guest shut down'}; it is started again in {pause:g} s", None)
            notify(f"READY=1\nSTATUS=started again in {pause:g} s: {fault or 'its guest shut down'}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
            settings = _asked_last(record, settings, say)
        if _rests(fault, settings):
            say(f"{name} is at rest{f': {fault}' if fault else ''}", None)
            notify("READY=1\nSTATUS=at rest")
            await _started_by_hand(record)


def _asked_last(record: Record, before: Autostart, say: Progress) -> Autostart:
    """How it is attended, which may have been said anew; as ``before`` where that cannot be read, and that is said."""
    try:
        return settings_of(record) or Autostart()
    except StateError as error:
        say(f"{error.what} ({error.why}); it is attended as before", None)
        return before


def _rests(fault: str | None, settings: Autostart) -> bool:
    """Whether a machine that ended so, as `_life` says it, is not started again."""
    return fault is None or settings.restart == "no" or (not fault and settings.restart == "on-failure")


async def _life(name: str, settings: Autostart, start: Start, say: Progress) -> str | None:
    """One life of the machine: what went wrong, empty where its guest shut down, None where somebody ended it."""
    if not machines.find(name).running:
        try:
            await start(name)
        except TinamouError as error:
            if settings.restart == "no":
                raise
            return f"it did not start: {error.what}"
    record = machines.find(name)
    notify("READY=1\nSTATUS=running")
    try:
        while (newest := await _outlived(record)) is not None:
            record = newest
    except asyncio.CancelledError:
        notify("STOPPING=1")
        await asyncio.shield(asyncio.ensure_future(_ended(name, settings, say)))
        raise
    return await in_thread(_fate, record)


async def _outlived(record: Record) -> Record | None:
    """Wait until its QEMU is gone; the machine where another one has taken it over meanwhile (`tinamou upgrade`)."""
    await gone(record.process, _FOREVER)
    newest = read(record.path)
    return newest if newest is not None and newest.running and newest.process != record.process else None


async def _ended(name: str, settings: Autostart, say: Progress) -> None:
    """Suspend it, or shut its guest down; a machine that cannot be suspended is shut down, and that is said."""
    with contextlib.suppress(StateError):  # it has just ended by itself
        record = life.running(name)
        settings = _asked_last(record, settings, say)
        if settings.suspend:
            from tinamou.machine.suspending import suspend

            try:
                async with Connected(record, owner=not record.owned) as machine:
                    await suspend(machine)
                return
            except TinamouError as error:
                say(f"{name} cannot be suspended ({error.what}: {error.why}); its guest is shut down", None)
        await life.stop(Connected.visiting(life.running(name)), grace=settings.grace)


def _fate(record: Record) -> str | None:
    """Why its QEMU is gone, as `_life` says it. How it ended is seen by the process that started it, else by nobody."""
    status = exit_code(record.pid)
    reconcile()
    newest = read(record.path)
    if newest is None or life.was_asked_to_end(newest) or is_suspended(newest):
        return None
    if newest.ended or status is None:
        return newest.ended or "nobody saw how its QEMU ended"
    if not status:
        return ""
    return f"QEMU was ended by {signal.Signals(-status).name}" if status < 0 else f"QEMU ended with status {status}"


async def _started_by_hand(record: Record) -> None:
    """Return when the machine runs again, or is gone."""
    while (newest := read(record.path)) is not None and not newest.running:  # noqa: ASYNC110  by another process
        await asyncio.sleep(_LOOK)
