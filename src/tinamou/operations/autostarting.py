"""Machines that start with the host: said, listed, taken back; and the process of their units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinamou.errors import StateError
from tinamou.images.progress import Progress, silent
from tinamou.machine import autostart, life
from tinamou.machine.attending import attend as attend_machine
from tinamou.machine.autostart import Autostart, Restart
from tinamou.operations.machines import resume, start
from tinamou.state import machines

__all__ = ["Autostart", "Restart", "attend", "listed", "off", "on"]


def on(
    name: str,
    *,
    after: Sequence[str] = (),
    delay: float = 0.0,
    suspend: bool = False,
    restart: Restart = "no",
    grace: float = life.GRACE_SECONDS,
) -> list[Path]:
    """Have a machine start with the host from now on, in this way alone; the unit files. Raises StateError, OSError."""
    return autostart.turn_on(machines.find(name), Autostart(tuple(after), delay, suspend, restart, grace))


def off(name: str) -> list[Path]:
    """It starts with the host no more; the files that were removed. Raises StateError where it did not."""
    record = machines.find(name)
    if not (gone := autostart.turn_off(record)):
        raise StateError(f"{name} does not start with the host", fix="tinamou autostart lists those that do")
    return gone


def listed() -> dict[str, Autostart]:
    """The machines that start with the host, by name."""
    found = ((one.name, autostart.settings_of(one)) for one in machines.machines())
    return {name: settings for name, settings in found if settings is not None}


async def attend(name: str, *, progress: Progress = silent) -> None:
    """What a machine's unit does; see `tinamou.machine.attending.attend`."""
    await attend_machine(name, _up, say=progress)


async def _up(name: str) -> None:
    """Started, or taken up where it was suspended."""
    if life.at_rest(machines.find(name)) == "suspended":
        await resume(name)
    else:
        await start(name)
