"""What the guest's screen is: none, VNC, or SPICE."""

from __future__ import annotations

from typing import Literal

from tinamou.blueprint import Contribution, Element, Flag, Why
from tinamou.errors import Problem
from tinamou.facts import QemuFacts
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

__all__ = ["PART", "SPICE_PACKAGE", "DisplaySpec", "has_spice"]


SPICE_PACKAGE = "qemu-system-modules-spice"
"""Debian's and Ubuntu's, from QEMU 8.2 on: before, the modules came with the emulators."""


def has_spice(qemu: QemuFacts) -> bool:
    """Whether SPICE is there: the option is known without its modules too, the types are not (where they are listed)."""
    return qemu.has("option:spice") and (qemu.has("type:chardev-spicevmc") or bool(qemu.notes))


@dataclass(frozen=True)
class DisplaySpec:
    """A screen, and how it is reached."""

    shorthand = "type"

    type: Literal["none", "vnc", "spice"] = option(
        "none", "none: serial console only; vnc or spice: on a Unix socket of the machine"
    )


def check(resolved: Resolved) -> list[Problem]:
    """A protocol this QEMU was built without, or whose modules are not installed."""
    if resolved.spec.display.type == "spice" and not has_spice(resolved.facts.qemu):
        return [Problem("display.type", "spice", "this QEMU has no SPICE", f"install {SPICE_PACKAGE}, or use vnc")]
    return []


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the graphics card, where there is a screen."""
    return () if resolved.spec.display.type == "none" else (PciSlot("video"),)


def contribute(resolved: Resolved) -> Contribution:
    """``-display none`` always; a card and a server socket where a screen is asked for."""
    spec = resolved.spec.display
    quiet = Flag("display", Why("part display", "QEMU opens no window of its own"), "none")
    if spec.type == "none":
        return Contribution(flags=(quiet,))
    why = Why("spec display.type", f"a screen reached through {spec.type} on a socket only the owner can open")
    path = resolved.file(f"run/{spec.type}.sock")
    server = (
        Flag("vnc", why, f"unix:{path}")
        if spec.type == "vnc"
        else Flag("spice", why, options={"unix": "on", "addr": path, "disable-ticketing": "on"})
    )
    return Contribution((_card(resolved, why),), (quiet, server))


def _card(resolved: Resolved, why: Why) -> Element:
    driver = "virtio-vga" if resolved.facts.qemu.has("type:virtio-vga") else "virtio-gpu-pci"
    return Element("device", {"driver": driver, "id": "video", "addr": resolved.pci["video"]}, why)


PART = Part(contribute, needs, check)
