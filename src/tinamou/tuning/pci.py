"""Which slot of the PCI root bus each device sits in: in order, so that the same parts give the same addresses."""

from __future__ import annotations

from tinamou.errors import PlanError
from tinamou.parts.settled import Need, PciSlot

FIRST, LAST = 2, 29
"""Slot 0 is the host bridge, 1 is left for a VGA card, 30 and 31 belong to the boards' own devices."""


def assign(needs: tuple[Need, ...]) -> dict[str, str]:
    """Addresses by device id. Raises PlanError when the bus is full."""
    devices = [need.device for need in needs if isinstance(need, PciSlot)]
    room = LAST - FIRST + 1
    if len(devices) > room:
        raise PlanError(
            f"{len(devices)} devices do not fit on the PCI bus",
            why=f"it has {room} free slots",
            fix="remove disks or network interfaces",
        )
    return {device: f"{FIRST + index:#x}" for index, device in enumerate(devices)}
