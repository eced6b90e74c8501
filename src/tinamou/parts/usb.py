"""USB: a controller, and what is plugged into it: pointers, keyboards, hubs, sticks made of files, devices of the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from tinamou.blueprint import Contribution, Element, HandOver, TakeUsbDevice, Value, Why
from tinamou.errors import Problem
from tinamou.facts.usb import UsbDevice, UsbFacts
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.display import REDIRECTED
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

__all__ = ["HOST", "IDS", "PART", "PORT", "UsbSpec"]

IDS, PORT = "[0-9a-fA-F]{4}:[0-9a-fA-F]{4}", r"\d{1,3}-\d{1,3}(?:\.\d{1,3}){0,5}"
_CONTROLLER = "qemu-xhci"
HOST = "usb-host"
"""The device that stands for one of the host's."""
_DRIVERS = {
    "tablet": ("usb-tablet", "a pointer that is where the viewer's is"),
    "mouse": ("usb-mouse", "a mouse"),
    "keyboard": ("usb-kbd", "a keyboard"),
    "hub": ("usb-hub", "a hub with eight ports"),
    "host": (HOST, "a device of the host's, the guest's alone while it runs"),
    "stick": ("usb-storage", "a stick, read and never written: what is on it stays as it is"),
}
_PORTS = 15
"""Ports of the controller (source: QEMU hw/usb/hcd-xhci.h, XHCI_MAXPORTS_3)."""


@dataclass(frozen=True)
class UsbSpec:
    """One USB device."""

    shorthand: ClassVar[str] = "type"

    type: Literal["tablet", "mouse", "keyboard", "hub", "stick", "host"] = option("tablet", "what is plugged in")
    device: str = option(
        "",
        "host: a device of this host, by VENDOR:PRODUCT as lsusb shows it (0951:1666), or by the port it is in (1-2.3)",
        pattern=rf"{IDS}|{PORT}",
        hint="lsusb lists VENDOR:PRODUCT, lsusb -t and /sys/bus/usb/devices the ports",
    )
    path: str = option("", "stick: the image file it is made of, which the guest reads and cannot write")
    format: Literal["raw", "qcow2"] = option("raw", "stick: the image's format")

    def problems(self) -> list[Problem]:
        """A stick without a file, a device of the host that is not named, and what is for something else."""
        return [*self._of_a_stick(), *self._of_the_host()]

    def _of_the_host(self) -> list[Problem]:
        if bool(self.device) == (self.type == "host"):
            return []
        reason = "no device is named" if self.type == "host" else f"a {self.type} is none of the host's"
        return [Problem("device", self.device or None, reason, "add device = …" if self.type == "host" else "leave it out")]

    def _of_a_stick(self) -> list[Problem]:
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
    found += _obstacles(resolved)
    if _plugged(resolved) > _PORTS:
        found.append(Problem("usb", _plugged(resolved), f"the controller has {_PORTS} ports", "leave some out"))
    return found


def _chosen(resolved: Resolved) -> Iterator[tuple[int, UsbDevice | str]]:
    """The device that each request for one of the host's stands for, or why there is none, by the request's number."""
    taken: list[UsbDevice] = []
    for number, one in enumerate(resolved.spec.usb):
        if one.type == "host":
            found = _named(one.device.lower(), resolved.facts.usb, taken)
            taken += [found] if isinstance(found, UsbDevice) else []
            yield number, found


def _named(name: str, facts: UsbFacts, taken: list[UsbDevice]) -> UsbDevice | str:
    here = [one for one in facts.devices if name in (one.port, one.ids)]
    free = [one for one in here if one not in taken]
    if not free:
        others = ", ".join(map(str, (one for one in facts.devices if not one.is_hub))) or "none"
        return f"{'no more of these' if here else 'no such device'} is plugged in; there are: {others}"
    unused = [one for one in free if not (one.uses or one.is_hub or one.port in facts.leased)]
    return (unused or free)[0]


def _obstacles(resolved: Resolved) -> Iterator[Problem]:
    """What keeps devices of the host from a guest."""
    for number, found in _chosen(resolved):
        path, asked = f"usb[{number}].device", resolved.spec.usb[number].device
        if isinstance(found, str):
            yield Problem(path, asked, found, "plug it in, or name one that is")
            continue
        if resolved.spec.memory.forkable:
            yield Problem(path, asked, "a fork would have the same device", "leave it out, or memory.forkable")
        if found.is_hub:
            yield Problem(path, asked, f"{found} is a hub, which stays the host's", "name what is plugged into it")
        if holder := resolved.facts.usb.leased.get(found.port):
            yield Problem(path, asked, f"{holder} has {found}", f"tinamou stop {holder}")
        for use in found.uses:
            yield Problem(path, asked, f"the host uses {found}: {use}", "unmount it, or set it down, first")
        if not found.opens:
            rule = f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{found.vendor}", ATTR{{idProduct}}=="{found.product}"'
            fix = f"as root, into /etc/udev/rules.d/70-usb.rules: {rule}, OWNER=…; then udevadm trigger"
            yield Problem(path, asked, f"only root may open {found.node}", fix)


def contribute(resolved: Resolved) -> Contribution:
    """The controller and its devices, each in a port of its own, in their order."""
    if not _plugged(resolved):
        return Contribution()
    why = Why("spec usb" if resolved.spec.usb else "spec display.redirected_usb", "a USB 3 controller")
    controller: dict[str, Value] = {"driver": _CONTROLLER, "id": "usb0", **resolved.slot("usb0"), "p2": _PORTS, "p3": _PORTS}
    parts = [Contribution((Element("device", controller, why),))]
    return Contribution.merge([*parts, *_devices(resolved), Contribution(tuple(_redirected(resolved)))])


def _devices(resolved: Resolved) -> Iterator[Contribution]:
    chosen = dict(_chosen(resolved))
    for number, one in enumerate(resolved.spec.usb):
        driver, reason = _DRIVERS[one.type]
        why = Why(f"spec usb[{number}]", reason)
        props: dict[str, Value] = {"driver": driver, "id": f"usb0-{number}", "bus": "usb0.0", "port": str(number + 1)}
        own = chosen.get(number)
        if isinstance(own, UsbDevice):
            took = TakeUsbDevice(own.port, Why(f"spec usb[{number}]", f"{own}: this machine's while it runs"))
            hand = HandOver(own.node, "write", Why("confinement", "QEMU is handed the open device"))
            yield Contribution((Element("device", {**props, "hostdevice": own.node}, why),), steps=(took, hand))
            continue
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
