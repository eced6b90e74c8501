"""USB: a controller, and what is plugged into it: pointers, keyboards, hubs, sticks made of image files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from tinamou.blueprint import Contribution, Element, HandOver, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.display import REDIRECTED
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

__all__ = ["PART", "UsbSpec"]

_CONTROLLER = "qemu-xhci"
_DRIVERS = {
    "tablet": ("usb-tablet", "a pointer that is where the viewer's is"),
    "mouse": ("usb-mouse", "a mouse"),
    "keyboard": ("usb-kbd", "a keyboard"),
    "hub": ("usb-hub", "a hub with eight ports"),
    "stick": ("usb-storage", "a stick, read and never written: what is on it stays as it is"),
}
_PORTS = 15
"""Ports of the controller (source: QEMU hw/usb/hcd-xhci.h, XHCI_MAXPORTS_3)."""


@dataclass(frozen=True)
class UsbSpec:
    """One USB device."""

    shorthand: ClassVar[str] = "type"

    type: Literal["tablet", "mouse", "keyboard", "hub", "stick"] = option("tablet", "what is plugged in")
    path: str = option("", "stick: the image file it is made of, which the guest reads and cannot write")
    format: Literal["raw", "qcow2"] = option("raw", "stick: the image's format")

    def problems(self) -> list[Problem]:
        """A stick without a file, and a file for something else."""
        if bool(self.path) == (self.type == "stick"):
            return []
        reason = "a stick is made of an image file" if self.type == "stick" else f"a {self.type} has no file"
        return [Problem("path", self.path or None, reason, "add path = …" if self.type == "stick" else "leave it out")]


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the controller."""
    return (PciSlot("usb0"),) if _plugged(resolved) else ()


def _plugged(resolved: Resolved) -> int:
    """How many ports are used, those for devices of a viewer's among them."""
    return len(resolved.spec.usb) + resolved.spec.display.redirected_usb


def check(resolved: Resolved) -> list[Problem]:
    """What this binary lacks, and more than the controller has ports for."""
    qemu, found = resolved.facts.qemu, []
    for number, one in enumerate(resolved.spec.usb):
        lacking = [driver for driver in (_CONTROLLER, _DRIVERS[one.type][0]) if not qemu.has(f"type:{driver}")]
        if lacking:
            reason = f"{qemu.binary} has no {lacking[0]}"
            found.append(Problem(f"usb[{number}].type", one.type, reason, "use another QEMU, or leave it out"))
    if _plugged(resolved) > _PORTS:
        found.append(Problem("usb", _plugged(resolved), f"the controller has {_PORTS} ports", "leave some out"))
    return found


def contribute(resolved: Resolved) -> Contribution:
    """The controller and its devices, each in a port of its own, in their order."""
    if not _plugged(resolved):
        return Contribution()
    why = Why("spec usb" if resolved.spec.usb else "spec display.redirected_usb", "a USB 3 controller")
    controller: dict[str, Value] = {"driver": _CONTROLLER, "id": "usb0", **resolved.slot("usb0"), "p2": _PORTS, "p3": _PORTS}
    parts = [Contribution((Element("device", controller, why),))]
    return Contribution.merge([*parts, *_devices(resolved), Contribution(tuple(_redirected(resolved)))])


def _devices(resolved: Resolved) -> Iterator[Contribution]:
    for number, one in enumerate(resolved.spec.usb):
        driver, reason = _DRIVERS[one.type]
        why = Why(f"spec usb[{number}]", reason)
        props: dict[str, Value] = {"driver": driver, "id": f"usb0-{number}", "bus": "usb0.0", "port": str(number + 1)}
        if one.type != "stick":
            yield Contribution((Element("device", props, why),))
            continue
        file: dict[str, Value] = {"driver": "file", "filename": one.path, "read-only": True}
        node: dict[str, Value] = {"driver": one.format, "node-name": f"stick{number}", "read-only": True, "file": file}
        hand = HandOver(one.path, "read", Why("confinement", "QEMU is handed the open image"))
        stick = Element("device", {**props, "drive": f"stick{number}", "removable": True}, why)
        yield Contribution((Element("blockdev", node, why), stick), steps=(hand,))


def _redirected(resolved: Resolved) -> Iterator[Element]:
    """Ports of the USB controller for the viewer's devices, behind those of ``usb``."""
    first = len(resolved.spec.usb) + 1
    for number in range(resolved.spec.display.redirected_usb):
        why = Why("spec display.redirected_usb", "a USB device that whoever looks at the screen hands to the guest")
        yield Element("chardev", {"id": f"usbredir{number}", "name": "usbredir"}, why, head="spicevmc")
        props: dict[str, Value] = {"driver": REDIRECTED, "id": f"usbredir{number}-dev", "chardev": f"usbredir{number}"}
        yield Element("device", {**props, "bus": "usb0.0", "port": str(first + number)}, why)


PART = Part(contribute, needs, check)
