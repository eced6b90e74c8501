"""What cards need beside a place: room for their memory regions, and what the user must hear of how they are reset."""

from __future__ import annotations

from tinamou.blueprint import Flag, Note, Why
from tinamou.facts.pci import PciDevice
from tinamou.parts.protocol import Resolved
from tinamou.units import Size

__all__ = ["notes", "window"]

_ROOMY = Size(16 << 30)
"""Firmware older than 2022 makes 32 GiB of room for large regions; half of it is safe with any alignment."""


def window(every: list[PciDevice], resolved: Resolved) -> tuple[Flag, ...]:
    """Room for large memory regions, which UEFI firmware must be told of; SeaBIOS and Linux make it themselves.

    Source: edk2 OvmfPkg/Library/PlatformInitLib/MemDetect.c.
    """
    wanted, file = Size(sum(one.window for one in every)), resolved.arch.window_file
    if resolved.boot != "uefi" or not file or wanted <= _ROOMY:
        return ()
    room = Size(1 << (2 * wanted - 1).bit_length())
    reason = f"the devices' large memory regions take {wanted}: the firmware makes room for {room} above 4 GiB"
    return (Flag("fw_cfg", Why("part pci", reason), options={"name": file, "string": str(room.mib)}),)


def notes(every: list[PciDevice]) -> tuple[Note, ...]:
    """What of a card the user may want to do something about: how it is reset, and regions it could have larger."""
    found = []
    if stubborn := ", ".join(str(one.address) for one in every if not one.resets):
        text = f"{stubborn} cannot be reset alone: after a crash the card may need a restart of the host"
        found.append(Note("warning", text, Why("host", "the kernel knows no way to reset it (sysfs: reset_method)")))
    if shared := ", ".join(str(one.address) for one in every if one.reset_methods[:1] == ("bus",)):
        text = f"{shared} is reset by its bus alone: with everything behind the same port"
        found.append(Note("note", text, Why("host", "its first reset_method in sysfs is bus: no reset of one function")))
    for one in every:
        for number, sizes in one.sizes.items():
            if (now := one.bars.get(number, Size(0))) < max(sizes):
                text = f"region {number} of {one.address} has {now} and can have {max(sizes)}"
                how = f"before the machine starts, with no driver on it: sysfs, resource{number}_resize"
                found.append(Note("note", text, Why("host", how)))
    return tuple(found)
