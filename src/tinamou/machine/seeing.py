"""A guest's screen and keyboard, by its machine: looked at, read, typed to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tinamou.arch import ARCHES
from tinamou.blueprint import Plan
from tinamou.control import RefusedError
from tinamou.control import screen as console
from tinamou.errors import SpecError, StateError
from tinamou.machine.connected import Connected
from tinamou.screen.keyboard import chord, chords_of
from tinamou.screen.picture import Picture
from tinamou.screen.text import Font, fonts_in, read_text

__all__ = ["press", "screenshot", "text_of", "type_text"]

_VGA = ("vgabios-stdvga.bin", "vgabios.bin")
_KEYBOARDS = ("virtio-keyboard", "usb-kbd", "virtio-input-host")
_MOST_FIRMWARE = 64 << 20


async def screenshot(machine: Connected) -> Picture:
    """What the guest's first screen shows now. Raises StateError for a machine without a screen, ControlError."""
    try:
        return await console.screendump(await machine.session())
    except RefusedError as error:
        if any(flag.name in ("vnc", "spice") for flag in machine.plan.flags):
            raise
        fix = f'make it with one: tinamou run --display vnc, or display = "vnc" in its file; tinamou logs {machine.name}'
        raise StateError(f"{machine.name} has no screen", why=error.description, fix=f"{fix} has its console") from error


def text_of(machine: Connected, picture: Picture) -> list[str]:
    """The lines of text in a picture of the machine's screen. Raises StateError where that is no text of its firmware's."""
    return read_text(picture, list(_fonts(machine)))


def _fonts(machine: Connected) -> Iterator[Font]:
    """Of the VGA BIOS beside its QEMU, and of its own UEFI."""
    from tinamou.probe.qemu import probe_qemu

    vga = [Path(folder, name) for name in _VGA for folder in probe_qemu(machine.plan.binary).data_dirs]
    flash = [element.props.get("file") for element in machine.plan.elements if element.props.get("node-name") == "flash0"]
    uefi = [Path(str(file["filename"])) for file in flash if isinstance(file, dict)]
    for path in (*[one for one in vga if one.is_file()][:1], *uefi):
        with path.open("rb") as file:
            yield from fonts_in(file.read(_MOST_FIRMWARE))


async def type_text(machine: Connected, text: str) -> None:
    """Type a text on a keyboard of the United States. Raises SpecError for what no key writes, StateError, ControlError."""
    await _pressed(machine, chords_of(text))


async def press(machine: Connected, keys: Sequence[str]) -> None:
    """Press keys held together, one after another: ``ctrl-alt-del``, ``f2``. Raises SpecError, StateError, ControlError."""
    if not keys:
        raise SpecError("no key is named", fix="as ctrl-alt-del, f2, esc")
    await _pressed(machine, [chord(one) for one in keys])


async def _pressed(machine: Connected, chords: Sequence[Sequence[str]]) -> None:
    """QEMU takes keys of a machine without keyboard, and drops them: that is told beforehand."""
    session = await machine.session()
    if not _has_keyboard(machine.plan):
        fix = (
            f"make it with one: tinamou run --display vnc on x86_64; tinamou console {machine.name} types to its serial port"
        )
        raise StateError(f"{machine.name} has no keyboard", why=f"its board ({machine.plan.arch}) has none", fix=fix)
    await console.press(session, chords)


def _has_keyboard(plan: Plan) -> bool:
    """Of its board, where nothing took it away, or one that was added."""
    own = ARCHES[plan.arch].keyboard
    options = [flag.options.get(own) for flag in plan.flags if flag.name == "machine"]
    drivers = (str(element.props.get("driver", "")) for element in plan.elements)
    return (bool(own) and "off" not in options) or any(driver.startswith(_KEYBOARDS) for driver in drivers)
