"""Screens and keyboards of machines by their names."""

from __future__ import annotations

from collections.abc import Sequence

from tinamou.late import dataclass
from tinamou.machine import life, seeing
from tinamou.machine.connected import Connected
from tinamou.screen.picture import Picture

__all__ = ["Screen", "press", "screenshot", "type_text"]


@dataclass(frozen=True)
class Screen:
    """What a machine shows: the picture, and the lines of its text where that was asked for."""

    picture: Picture
    text: tuple[str, ...] = ()


async def screenshot(name: str, *, text: bool = False) -> Screen:
    """What a running machine's screen shows now. Raises StateError, ControlError; with ``text`` also for no text."""
    async with Connected.visiting(life.running(name)) as machine:
        picture = await seeing.screenshot(machine)
        return Screen(picture, tuple(seeing.text_of(machine, picture)) if text else ())


async def type_text(name: str, text: str) -> None:
    """Type a text to a running machine. Raises SpecError, StateError, ControlError."""
    async with Connected.visiting(life.running(name)) as machine:
        await seeing.type_text(machine, text)


async def press(name: str, keys: Sequence[str]) -> None:
    """Press keys of a running machine, one chord after another. Raises SpecError, StateError, ControlError."""
    async with Connected.visiting(life.running(name)) as machine:
        await seeing.press(machine, keys)
