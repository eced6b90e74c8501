"""What a person would do who sits before the machine: look at its screen, type, press keys; with asyncio, and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.machine.of_host import of_host
from tinamou.machine.reach import Reach
from tinamou.system.loop_thread import wait_for

if TYPE_CHECKING:
    from tinamou.screen.picture import Picture

__all__ = ["Handled", "PlainHandled"]


@of_host
class Handled(Reach):
    """The part of `AsyncMachine` that is about its screen and its keyboard."""

    async def screenshot(self) -> Picture:
        """What its screen shows now; ``picture.png()`` is a PNG file. Raises StateError for a machine without a screen."""
        from tinamou.machine import seeing

        async with self._at_hand() as machine:
            return await seeing.screenshot(machine)

    async def screen_text(self) -> list[str]:
        """The lines of text on its screen. Raises StateError where it is no screen of characters of its firmware's."""
        from tinamou.machine import seeing

        async with self._at_hand() as machine:
            return seeing.text_of(machine, await seeing.screenshot(machine))

    async def type(self, text: str) -> None:
        """Type a text on its keyboard, one of the United States. Raises SpecError naming what no key writes, StateError."""
        from tinamou.machine import seeing

        async with self._at_hand() as machine:
            await seeing.type_text(machine, text)

    async def keys(self, *keys: str) -> None:
        """Press keys, one after another: ``ctrl-alt-del`` (held together), ``f2``. Raises SpecError, StateError."""
        from tinamou.machine import seeing

        async with self._at_hand() as machine:
            await seeing.press(machine, keys)


class PlainHandled:
    """The same for programs without asyncio, a part of `Machine`."""

    _machine: Handled

    def screenshot(self) -> Picture:
        """What its screen shows now; ``picture.png()`` is a PNG file. See `AsyncMachine.screenshot`."""
        return wait_for(self._machine.screenshot())

    def screen_text(self) -> list[str]:
        """The lines of text on its screen; see `AsyncMachine.screen_text`."""
        return wait_for(self._machine.screen_text())

    def type(self, text: str) -> None:
        """Type a text on its keyboard, one of the United States. Raises SpecError naming what no key writes, StateError."""
        wait_for(self._machine.type(text))

    def keys(self, *keys: str) -> None:
        """Press keys, one after another: ``ctrl-alt-del`` (held together), ``f2``. Raises SpecError, StateError."""
        wait_for(self._machine.keys(*keys))
