"""Where each PCI device sits: on the root bus, in order, so that addresses stay what they are, or in a hot-plug slot.

A hot-plug slot is a root port. The ports are functions of the root bus's last slots, so that they never move another device.
"""

from __future__ import annotations

import dataclasses

from tinamou.blueprint import Contribution, Element, Value, Why
from tinamou.errors import PlanError, Problem
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

__all__ = ["PART", "PORTS", "port_name", "with_slots"]

FIRST, LAST = 2, 29
"""Slot 0 is the host bridge, 1 is left for a VGA card, 30 and 31 belong to the boards' own devices."""

PORTS = 4
"""Hot-plug slots of a machine that stays."""

_FUNCTIONS = 8
_PORT = "pcie-root-port"


def with_slots(resolved: Resolved, needs: tuple[Need, ...]) -> Resolved:
    """The machine with a slot for each device that needs one. Raises PlanError where one is taken or the bus is full."""
    slots = [need for need in needs if isinstance(need, PciSlot)]
    hotplug = max([_reserved(resolved), *(slot.port for slot in slots if slot.port)])
    devices = [slot.device for slot in slots if not slot.port]
    return dataclasses.replace(resolved, needs=needs, pci=_addresses(devices, hotplug), ports=_taken(slots), hotplug=hotplug)


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


def _addresses(devices: list[str], hotplug: int) -> dict[str, str]:
    """Addresses on the root bus by device id. Raises PlanError when the bus is full."""
    room = LAST - FIRST + 1 - -(-hotplug // _FUNCTIONS)
    if len(devices) > room:
        raise PlanError(
            f"{len(devices)} devices do not fit on the PCI bus",
            why=f"it has {room} free slots",
            fix="remove disks or network interfaces",
        )
    return {device: f"{FIRST + index:#x}" for index, device in enumerate(devices)}


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
