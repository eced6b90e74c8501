"""What the guest's screen is: none, VNC, or SPICE."""

from __future__ import annotations

from typing import Literal

from tinamou.blueprint import Contribution, Element, Flag, MakeDir, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.settled import Need, PciSlot, Settled


@dataclass(frozen=True)
class DisplaySpec:
    """A screen, and how it is reached."""

    shorthand = "type"

    type: Literal["none", "vnc", "spice"] = option(
        "none", "none: serial console only; vnc or spice: on a Unix socket of the machine"
    )


def check(spec: DisplaySpec, settled: Settled) -> list[Problem]:
    """A protocol this QEMU was built without."""
    if spec.type == "spice" and not settled.facts.qemu.has("option:spice"):
        return [Problem("display.type", "spice", "this QEMU has no SPICE", "install qemu-system-modules-spice, or use vnc")]
    return []


def needs(spec: DisplaySpec) -> tuple[Need, ...]:
    """A slot for the graphics card, where there is a screen."""
    return () if spec.type == "none" else (PciSlot("video"),)


def contribute(spec: DisplaySpec, settled: Settled) -> Contribution:
    """``-display none`` always; a card, keyboard and tablet, and a server socket where a screen is asked for."""
    quiet = Flag("display", Why("part display", "QEMU opens no window of its own"), "none")
    if spec.type == "none":
        return Contribution(flags=(quiet,))
    why = Why("spec display.type", f"a screen reached through {spec.type} on a socket only the owner can open")
    folder = MakeDir(
        settled.file("run"), Why("part display", "the one folder QEMU may create sockets in"), owner=settled.owner
    )
    path = settled.file(f"run/{spec.type}.sock")
    server = (
        Flag("vnc", why, f"unix:{path}")
        if spec.type == "vnc"
        else Flag("spice", why, options={"unix": "on", "addr": path, "disable-ticketing": "on"})
    )
    return Contribution((_card(settled, why),), (quiet, server), (folder,))


def _card(settled: Settled, why: Why) -> Element:
    driver = "virtio-vga" if settled.facts.qemu.has("type:virtio-vga") else "virtio-gpu-pci"
    return Element("device", {"driver": driver, "id": "video", "addr": settled.pci["video"]}, why)
