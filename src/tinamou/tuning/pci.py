"""Where each PCI device sits: on the root bus, in order, so that addresses stay what they are, or in a hot-plug slot.

A hot-plug slot is a root port. The ports are functions of the root bus's last slots, so that they never move another device.
"""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, Value, Why
from tinamou.errors import PlanError, Problem
from tinamou.facts import QemuFacts
from tinamou.parts.settled import Need, PciSlot

__all__ = ["PORTS", "assign", "contribute", "port_name", "ports_of", "reserved", "taken"]

FIRST, LAST = 2, 29
"""Slot 0 is the host bridge, 1 is left for a VGA card, 30 and 31 belong to the boards' own devices."""

PORTS = 4
"""Hot-plug slots of a machine that stays."""

_FUNCTIONS = 8
_PORT = "pcie-root-port"


def reserved(wish: int | None, *, plugs: bool) -> int:
    """How many hot-plug slots are set aside: as wished, else some where anything may ever be plugged in."""
    return wish if wish is not None else PORTS * plugs


def ports_of(needs: tuple[Need, ...], reserve: int) -> int:
    """How many hot-plug slots there are: those set aside, and all up to the last one in use."""
    return max([reserve, *(need.port for need in needs if isinstance(need, PciSlot) and need.port)])


def taken(needs: tuple[Need, ...]) -> dict[str, str]:
    """The hot-plug slot of each device that sits in one. Raises PlanError where two want the same."""
    found: dict[str, str] = {}
    for need in needs:
        if isinstance(need, PciSlot) and need.port:
            if port_name(need.port) in found.values():
                problem = Problem(f"{need.device} port", need.port, "another device sits in this slot", "choose another")
                raise PlanError("two devices want the same hot-plug slot", problems=[problem])
            found[need.device] = port_name(need.port)
    return found


def port_name(number: int) -> str:
    """The id of a hot-plug slot, which is the bus of what sits in it."""
    return f"plug{number}"


def assign(needs: tuple[Need, ...], ports: int = 0) -> dict[str, str]:
    """Addresses on the root bus by device id. Raises PlanError when the bus is full."""
    devices = [need.device for need in needs if isinstance(need, PciSlot) and not need.port]
    room = LAST - FIRST + 1 - -(-ports // _FUNCTIONS)
    if len(devices) > room:
        raise PlanError(
            f"{len(devices)} devices do not fit on the PCI bus",
            why=f"it has {room} free slots",
            fix="remove disks or network interfaces",
        )
    return {device: f"{FIRST + index:#x}" for index, device in enumerate(devices)}


def contribute(ports: int, qemu: QemuFacts) -> Contribution:
    """The hot-plug slots. Raises PlanError when this QEMU has none."""
    if ports and not qemu.has(f"type:{_PORT}"):
        raise PlanError(f"{qemu.binary} has no {_PORT}", fix="set devices.hotplug = 0")
    why = Why("spec devices.hotplug", "an empty slot, so that a disk or a network card can be plugged in while it runs")
    return Contribution(elements=tuple(Element("device", _port(number), why) for number in range(1, ports + 1)))


def _port(number: int) -> dict[str, Value]:
    """A root port; chassis and slot number are what a guest tells ports apart by (PCI Express Base, Slot Capabilities)."""
    slot, function = divmod(number - 1, _FUNCTIONS)
    props: dict[str, Value] = {"driver": _PORT, "id": port_name(number), "chassis": number, "slot": number}
    return {**props, "addr": f"{LAST - slot:#x}.{function:#x}", "multifunction": function == 0}
