"""Where each PCI device sits: on the root bus, in order, so that addresses stay what they are, or in a hot-plug slot.

A hot-plug slot is a root port. The ports are functions of the root bus's last slots, so that they never move another device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.blueprint import Contribution, Element, Value, Why
from tinamou.errors import PlanError, Problem
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

if TYPE_CHECKING:
    from tinamou.spec import MachineSpec

__all__ = ["PART", "PORTS", "on_the_root_bus", "port_name", "with_slots"]

FIRST, LAST = 2, 29
"""Slot 0 is the host bridge, 1 is left for a VGA card, 30 and 31 belong to the boards' own devices."""

PORTS = 4
"""Hot-plug slots of a machine that stays."""

_FUNCTIONS = 8
_ADDING = ("device", "nic", "drive", "virtfs", "vga")
"""Options of QEMU that may put a device on the root bus."""
_ADDRESS = r"\baddr\"?[=:]\s*\"?(?:0x)?([0-9a-fA-F]+)"
_BELOW = r"\bbus\"?[=:]\s*\"?(?!pcie\.0)"
"""What says that a device sits on another bus."""
_PORT, _ROOT_BUS = "pcie-root-port", "pcie.0"


def with_slots(resolved: Resolved, needs: tuple[Need, ...]) -> Resolved:
    """The machine with a slot for each device that needs one. Raises PlanError where one is taken or the bus is full."""
    slots = [need for need in needs if isinstance(need, PciSlot)]
    hotplug = max([_reserved(resolved), *(slot.port for slot in slots if slot.port)])
    devices = [slot.device for slot in slots if not slot.port]
    room = _room(hotplug, resolved.spec.qemu_args)
    return late.replace(resolved, needs=needs, pci=_addresses(devices, room), ports=_taken(slots), hotplug=hotplug)


def _reserved(resolved: Resolved) -> int:
    """Hot-plug slots that are set aside: as requested, else some where anything may be plugged in; one for each share.

    Nothing is plugged in where the guest is soon gone, nor where forks must have the same hardware.
    """
    spec = resolved.spec
    plugs = not resolved.facts.place.throwaway and not spec.memory.forkable
    return len(spec.share) + (PORTS * plugs if spec.devices.hotplug is None else spec.devices.hotplug)


def _taken(slots: list[PciSlot]) -> dict[str, str]:
    """The hot-plug slot of each device that sits in one. Raises PlanError where two need the same."""
    found: dict[str, str] = {}
    for slot in slots:
        if slot.port and port_name(slot.port) in found.values():
            problem = Problem(f"{slot.device} port", slot.port, "another device sits in this slot", "choose another")
            raise PlanError("two devices want the same hot-plug slot", problems=[problem])
        if slot.port:
            found[slot.device] = port_name(slot.port)
    return found


def port_name(number: int) -> str:
    """The id of a hot-plug slot, which is the bus of what sits in it."""
    return f"plug{number}"


def _room(hotplug: int, by_hand: Sequence[str]) -> list[int]:
    """The root bus's slots that are free for devices. Raises PlanError for one that was given away by hand.

    What is added by hand is made first: it sits where it says, or in the first slots that are free then.
    """
    last = LAST - -(-hotplug // _FUNCTIONS)
    named, unnamed = _by_hand(by_hand)
    if clash := sorted(slot for slot in named if last < slot <= LAST):
        reason = f"slot {clash[0]:#x} of the PCI bus is one of its hot-plug slots"
        problem = Problem("qemu_args", list(by_hand), reason, f"name another addr, from {FIRST:#x} to {last:#x}, or none")
        raise PlanError("the machine's devices cannot be placed", problems=[problem])
    free = [slot for slot in range(1, last + 1) if slot not in named][unnamed:]
    return [slot for slot in free if slot >= FIRST]


def _by_hand(words: Sequence[str]) -> tuple[frozenset[int], int]:
    """The slots that arguments passed on as they are name for devices, and how many devices they name none for."""
    added = [value for option, value in pairwise(words) if option.lstrip("-") in _ADDING and not re.search(_BELOW, value)]
    named = [match for value in added if (match := re.search(_ADDRESS, value))]
    return frozenset(int(match[1], 16) for match in named), len(added) - len(named)


def _addresses(devices: list[str], room: list[int]) -> dict[str, str]:
    """Addresses on the root bus by device id. Raises PlanError when the bus is full."""
    if len(devices) > len(room):
        raise PlanError(
            f"{len(devices)} devices do not fit on the PCI bus",
            why=f"it has {len(room)} free slots",
            fix="remove disks or network interfaces",
        )
    return {device: f"{slot:#x}" for device, slot in zip(devices, room, strict=False)}


def on_the_root_bus(elements: tuple[Element, ...], spec: MachineSpec) -> tuple[Element, ...]:
    """Devices with the name of their bus where one passed on as it is makes another root complex (``pxb-pcie``).

    QEMU puts a device that names no bus behind the newest one.
    """
    if not any("pxb" in word for word in spec.qemu_args):
        return elements
    return tuple(
        late.replace(one, props={**one.props, "bus": _ROOT_BUS})
        if one.kind == "device" and "addr" in one.props and "bus" not in one.props
        else one
        for one in elements
    )


def check(resolved: Resolved) -> list[Problem]:
    """Hot-plug slots of a QEMU that has none."""
    qemu = resolved.facts.qemu
    if not resolved.hotplug or qemu.has(f"type:{_PORT}"):
        return []
    return [Problem("devices.hotplug", resolved.hotplug, f"{qemu.binary} has no {_PORT}", "set it to 0")]


def contribute(resolved: Resolved) -> Contribution:
    """The hot-plug slots."""
    why = Why("spec devices.hotplug", "an empty slot, so that a disk or a network card can be plugged in while it runs")
    ports = (Element("device", _port(number), why) for number in range(1, resolved.hotplug + 1))
    return Contribution(elements=tuple(ports))


def _port(number: int) -> dict[str, Value]:
    """A root port; chassis and slot number are what a guest tells ports apart by (PCI Express Base, Slot Capabilities)."""
    slot, function = divmod(number - 1, _FUNCTIONS)
    props: dict[str, Value] = {"driver": _PORT, "id": port_name(number), "chassis": number, "slot": number}
    return {**props, "addr": f"{LAST - slot:#x}.{function:#x}", "multifunction": function == 0}


PART = Part(contribute, check=check)
