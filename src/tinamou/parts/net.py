"""Network interfaces: the backend on the host's side and the card on the guest's side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinamou.blueprint import Contribution, Element, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.parts.settled import Need, PciSlot, Settled
from tinamou.units import Mac

MODELS = {
    "virtio": ("virtio-net-pci", "virtio-net: no emulated hardware between guest and host"),
    "e1000e": (
        "e1000e",
        "an Intel 82574L, for guests without virtio drivers; every packet costs emulated register accesses",
    ),
    "e1000": ("e1000", "an Intel 82540EM, for old guests; every packet costs emulated register accesses"),
    "rtl8139": ("rtl8139", "a Realtek 8139, for very old guests; the slowest of all"),
}


@dataclass(frozen=True, slots=True)
class NetSpec:
    """One network interface."""

    shorthand = "type"

    type: Literal["user", "none"] = option(
        "user", "user: outgoing traffic through QEMU's own TCP/IP stack, no rights needed; none: no interface"
    )
    model: Literal["virtio", "e1000e", "e1000", "rtl8139"] = option("virtio", "the card the guest sees")
    mac: Mac | None = option(None, "hardware address; derived from the machine's name when left out")
    forward: tuple[str, ...] = option((), "ports of the host that lead into the guest: tcp:127.0.0.1:8080:80")

    def problems(self) -> list[Problem]:
        """Forwards that are not ``[tcp:|udp:][address:]hostport:guestport``."""
        found = []
        for index, text in enumerate(self.forward):
            try:
                parse_forward(text)
            except ValueError as error:
                found.append(
                    Problem(f"forward[{index}]", text, str(error), "write for example tcp:127.0.0.1:8080:80, or 8080:80")
                )
        return found


def parse_forward(text: str) -> tuple[str, str, int, int]:
    """``"tcp:127.0.0.1:8080:80"`` or ``"8080:80"`` → (protocol, address, host port, guest port). Raises ValueError."""
    parts = text.split(":")
    protocol = parts.pop(0) if parts[0] in ("tcp", "udp") else "tcp"
    address = parts.pop(0) if len(parts) == 3 else "127.0.0.1"
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) < 65536 for part in parts):
        raise ValueError("not a port forward of the form [tcp:|udp:][address:]hostport:guestport")
    return protocol, address, int(parts[0]), int(parts[1])


def mac_of(spec: NetSpec, machine: str, number: int) -> str:
    """The interface's address: as given, or derived from machine name and number (52:54:00 is QEMU's own prefix)."""
    if spec.mac:
        return str(spec.mac)
    digest = hashlib.sha256(f"{machine}/{number}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def interfaces(specs: Sequence[NetSpec]) -> list[NetSpec]:
    """Those that are there at all."""
    return [spec for spec in specs if spec.type != "none"]


def needs(specs: Sequence[NetSpec]) -> tuple[Need, ...]:
    """A PCI slot for each card."""
    return tuple(PciSlot(f"net{number}-dev") for number, _ in enumerate(interfaces(specs)))


def contribute(specs: Sequence[NetSpec], settled: Settled) -> Contribution:
    """A netdev and a card for each interface."""
    place, image = settled.facts.place, settled.facts.image
    elements = []
    for number, spec in enumerate(interfaces(specs)):
        forwards = [parse_forward(text) for text in spec.forward]
        if number == 0 and image.ssh and place.ssh_port:
            forwards.append(("tcp", "127.0.0.1", place.ssh_port, 22))
        elements += [_backend(number, forwards), _card(number, spec, settled)]
    return Contribution(elements=tuple(elements))


def _backend(number: int, forwards: list[tuple[str, str, int, int]]) -> Element:
    why = Why("spec net", "outgoing traffic without any right on the host; reached from outside only by the forwards")
    props: dict[str, Value] = {"type": "user", "id": f"net{number}"}
    if forwards:
        props["hostfwd"] = [{"str": f"{protocol}:{address}:{host}-:{guest}"} for protocol, address, host, guest in forwards]
    return Element("netdev", props, why)


def _card(number: int, spec: NetSpec, settled: Settled) -> Element:
    driver, reason = MODELS[spec.model]
    name = f"net{number}-dev"
    props: dict[str, Value] = {"driver": driver, "id": name, "netdev": f"net{number}", "addr": settled.pci[name]}
    props["mac"] = mac_of(spec, settled.facts.place.name, number)
    props["romfile"] = ""
    return Element("device", props, Why("spec net.model", f"{reason}; no boot ROM, which would only cost start-up time"))
