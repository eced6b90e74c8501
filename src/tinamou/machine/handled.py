"""What a person would do who sits before the machine: look at its screen, type, press keys; with asyncio, and without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou.machine import seeing
from tinamou.machine.of_host import of_host
from tinamou.machine.reach import Reach
from tinamou.system.loop_thread import wait_for

if TYPE_CHECKING:
    from tinamou.machine.dumping import Format
    from tinamou.machine.viewing import Viewing
    from tinamou.screen.picture import Picture

__all__ = ["Handled", "PlainHandled"]


@of_host
class Handled(Reach):
    """The part of `AsyncMachine` that is about its screen and its keyboard."""

    async def screenshot(self) -> Picture:
        """What its screen shows now; ``picture.png()`` is a PNG file. Raises StateError for a machine without a screen."""
        async with self._at_hand() as machine:
            return await seeing.screenshot(machine)

    async def screen_text(self) -> list[str]:
        """The lines of text on its screen. Raises StateError where it is no screen of characters of its firmware's."""
        async with self._at_hand() as machine:
            return seeing.text_of(machine, await seeing.screenshot(machine))

    async def type(self, text: str) -> None:
        """Type a text on its keyboard, one of the United States. Raises SpecError naming what no key writes, StateError."""
        async with self._at_hand() as machine:
            await seeing.type_text(machine, text)

    async def keys(self, *keys: str) -> None:
        """Press keys, one after another: ``ctrl-alt-del`` (held together), ``f2``. Raises SpecError, StateError."""
        async with self._at_hand() as machine:
            await seeing.press(machine, keys)

    async def let_in(self, seconds: int = 300) -> Viewing:
        """Make a password for its screen's TCP port (``display.listen``), good for so many seconds; where, and which.

        Raises SpecError, StateError for a machine whose screen has no such port.
        """
        from tinamou.machine import viewing

        async with self._at_hand() as machine:
            return await viewing.let_in(machine, seconds)

    async def hmp(self, line: str, *, force: bool = False) -> str:
        """Say a line to QEMU's human monitor, and return what it prints; it is kept in the machine's ``monitor.log``.

        Raises StateError for what tinamou keeps account of, unless ``force``; ControlError.
        """
        from tinamou.machine import by_hand

        async with self._at_hand() as machine:
            return str(await by_hand.ask(machine, by_hand.Said(line=line), force=force))

    async def dump(self, file: str | Path, *, format: Format = "elf") -> int:
        """Write its memory and registers into a file for gdb (``elf``) or crash (``kdump-zlib``, …); its size in bytes.

        Raises StateError where memory is encrypted, SpecError for a format that this QEMU does not write, ControlError.
        """
        from tinamou.machine.dumping import dump

        async with self._at_hand(long=True) as machine:
            return await dump(machine, Path(file), format=format)

    async def autostart(self, *, off: bool = False, **settings: Any) -> list[Path]:
        """Have it start with the host (``after``, ``delay``, ``suspend``, ``restart``, ``grace``: see
        `tinamou.machine.autostart.Autostart`), or no more; the files written or removed. Raises StateError.
        """
        from tinamou.machine import autostart

        return autostart.turn_off(self.record) if off else autostart.turn_on(self.record, autostart.Autostart(**settings))


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

    def let_in(self, seconds: int = 300) -> Viewing:
        """Make a password for its screen's TCP port; see `AsyncMachine.let_in`."""
        return wait_for(self._machine.let_in(seconds))

    def hmp(self, line: str, *, force: bool = False) -> str:
        """Say a line to QEMU's human monitor, and return what it prints; see `AsyncMachine.hmp`."""
        return wait_for(self._machine.hmp(line, force=force))

    def dump(self, file: str | Path, *, format: Format = "elf") -> int:
        """Write its memory and registers into a file; its size in bytes. See `AsyncMachine.dump`."""
        return wait_for(self._machine.dump(file, format=format))

    def autostart(self, *, off: bool = False, **settings: Any) -> list[Path]:
        """Have it start with the host, or no more; see `AsyncMachine.autostart`."""
        return wait_for(self._machine.autostart(off=off, **settings))
