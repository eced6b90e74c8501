"""What cards need beside a place: room for their memory regions; what the user must hear of how they are kept and reset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tinamou.blueprint import Flag, Note, Why
from tinamou.errors import Problem
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.parts.passthrough.spec import AssignedDevice
from tinamou.parts.protocol import Resolved
from tinamou.units import PciAddress, Size

__all__ = ["notes", "regions", "room_problems", "window"]

_ROOMY = Size(16 << 30)
"""Firmware older than 2022 makes 32 GiB of room for large regions; half of it is safe with any alignment."""


def regions(assigned: Iterable[AssignedDevice]) -> dict[PciAddress, tuple[str, int, int]]:
    """Device → its address, the number of the memory region that has another size meanwhile, and that size in bytes."""
    found = ((*one.resized, one.spec.region) for one in assigned if one.resized)
    return {device.address: (str(device.address), region, int(size)) for device, region, size in found}


def _wanted(assigned: tuple[AssignedDevice, ...]) -> Size:
    """What all large memory regions take together, with the sizes they are to have."""
    total = sum(one.window for card in assigned if not card.part for one in card.functions)
    return Size(total + sum(one.spec.region - one.resized[0].bars.get(one.resized[1], 0) for one in assigned if one.resized))


def _room(wanted: Size) -> Size:
    """A power of two in which they fit whatever their alignment."""
    return Size(1 << (2 * wanted - 1).bit_length())


def room_problems(resolved: Resolved) -> list[Problem]:
    """Regions that would end beyond the highest address of this processor."""
    wanted, width = _wanted(resolved.assigned), resolved.facts.pci.width
    memory = resolved.spec.memory.size
    if not width or wanted <= _ROOMY or (end := memory + 2 * _room(wanted)) <= 1 << width:
        return []
    reason = f"memory and regions of {wanted} end at {Size(end)}, and addresses of this processor have {width} bits"
    fix = "give it fewer cards, or smaller regions (region)"
    return [Problem("pci", [one.spec.device for one in resolved.assigned], reason, fix)]


def window(resolved: Resolved) -> tuple[Flag, ...]:
    """Room for large memory regions, which UEFI firmware must be told of; SeaBIOS and Linux make it themselves.

    Source: edk2 OvmfPkg/Library/PlatformInitLib/MemDetect.c.
    """
    wanted, file = _wanted(resolved.assigned), resolved.arch.window_file
    if resolved.boot != "uefi" or not file or wanted <= _ROOMY:
        return ()
    reason = f"the devices' large memory regions take {wanted}: the firmware makes room for {_room(wanted)} above 4 GiB"
    return (Flag("fw_cfg", Why("part pci", reason), options={"name": file, "string": str(_room(wanted).mib)}),)


def notes(resolved: Resolved) -> tuple[Note, ...]:
    """What of a card the user may want to do something about: how it is kept apart and reset, and regions of other sizes."""
    cards = tuple(one for one in resolved.assigned if not one.part)
    every = [one for card in cards for one in card.functions]
    pci = resolved.facts.pci
    return (*_kept(every, pci), *_stubborn(every), *_by_bus(cards, pci), *_sizes(cards))


def _kept(every: list[PciDevice], pci: PciFacts) -> Iterator[Note]:
    if every and pci.pretended:
        text = (
            f"the IOMMU groups are pretended ({pci.pretended}): devices may reach each other, and this host, past the IOMMU"
        )
        yield Note("warning", text, Why("host", "/proc/cmdline: the kernel was told so, no hardware promises it"))


def _stubborn(every: list[PciDevice]) -> Iterator[Note]:
    if stubborn := ", ".join(str(one.address) for one in every if not one.resets):
        text = f"{stubborn} cannot be reset alone: after a crash the card may need a restart of the host"
        yield Note("warning", text, Why("host", "the kernel knows no way to reset it (sysfs: reset_method)"))


def _by_bus(cards: Iterable[AssignedDevice], pci: PciFacts) -> Iterator[Note]:
    for one, chosen in ((one, card.chosen_reset(one)) for card in cards for one in card.functions):
        if (chosen or next(iter(one.reset_methods), "")) == "bus":
            others = ", ".join(str(other.address) for other in pci.reset_with(one)) or "nothing else"
            text = f"{one.address} is reset by its bus alone: with everything behind the same port ({others})"
            why = "spec pci.reset" if chosen else "host"
            yield Note("note", text, Why(why, "bus is the reset_method in sysfs that is used: no reset of one function"))


def _sizes(assigned: Iterable[AssignedDevice]) -> Iterator[Note]:
    for card in assigned:
        for one in card.functions if not card.spec.region else ():
            for number, sizes in one.sizes.items():
                if (now := one.bars.get(number, Size(0))) < max(sizes):
                    text = f"region {number} of {one.address} has {now} and can have {', '.join(map(str, sizes))}"
                    yield Note("note", text, Why("host", f"spec pci.region; sysfs: resource{number}_resize"))
