"""What the guest's screen is: none, VNC, or SPICE."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from tinamou.blueprint import Contribution, Element, Flag, Note, Value, Why
from tinamou.errors import Problem
from tinamou.facts import QemuFacts
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.monitor import SPICE_PORT, port
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.units import Size

__all__ = ["MOST_REDIRECTED", "PART", "REDIRECTED", "SPICE_PACKAGE", "DisplaySpec", "has_spice"]


VDAGENT_PORT = "com.redhat.spice.0"
"""The name of the virtio-serial port that spice-vdagent listens on."""
SPICE_PACKAGE = "qemu-system-modules-spice"
"""Debian's and Ubuntu's, from QEMU 8.2 on: before, the modules came with the emulators."""


_LAST_PORT = 65535
MOST_REDIRECTED = 8
"""So many USB devices a viewer can hand over at once."""
REDIRECTED = "usb-redir"
"""The device that stands for one of the viewer's; `tinamou.parts.usb` plugs it in."""
_DRIVERS = {
    "virtio": ("virtio-vga", "virtio-gpu-pci"),
    "qxl": ("qxl-vga", "qxl"),
    "ramfb": ("ramfb",),
    "std": ("VGA", "bochs-display"),
}
"""Devices of each kind of card, best first."""


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
    video: Literal["auto", "none", "virtio", "virtio-gl", "qxl", "ramfb", "std"] = option(
        "auto", "the graphics card; auto: virtio where there is a screen; a card without a screen can be looked at too"
    )
    clipboard: bool = option(
        False, "spice: the guest's agent (spice-vdagent) and the viewer share their clipboards, and files can be dropped"
    )
    redirected_usb: int = option(
        0,
        "spice: so many USB devices of the viewer's can be handed to the guest at once",
        minimum=0,
        maximum=MOST_REDIRECTED,
    )

    looking_glass: str = option(
        "",
        "memory for pictures of a graphics card of the guest's own, which looking-glass-client shows on this host: their "
        "resolution (2560x1440), or its size (64M)",
        pattern=r"[1-9]\d{2,4}x[1-9]\d{2,4}|[1-9]\d{0,4}[MG]",
    )
    looking_glass_user: str = option(
        "", "who may open that memory beside who starts the machine", pattern=r"[\w.][\w.-]{0,31}"
    )
    listen: str = option(
        "",
        "vnc: the screen is on this TCP address too (0.0.0.0:5901, [::1]:5901), for whoever has the password that "
        "tinamou display --password makes for a while",
    )
    tls: str = option(
        "", "listen: a folder with ca-cert.pem, server-cert.pem and server-key.pem; needed beyond this host's loopback"
    )

    def problems(self) -> list[Problem]:
        """What only SPICE has, asked of another screen; memory of a size that is no power of two, or for nobody."""
        found = [*self._of_looking_glass(), *self._of_listen()]
        if self.type == "spice":
            return found
        asked = {"clipboard": self.clipboard, "redirected_usb": self.redirected_usb}
        reason = f"only SPICE has it, and display.type is {self.type}"
        return [*found, *(Problem(name, value, reason, 'set type = "spice"') for name, value in asked.items() if value)]

    def _of_looking_glass(self) -> list[Problem]:
        asked = self.looking_glass
        if self.looking_glass_user and not asked:
            return [
                Problem("looking_glass_user", self.looking_glass_user, "there is no looking_glass", "say its resolution")
            ]
        if asked and "x" not in asked and (size := Size.parse(asked)) & (size - 1):
            return [
                Problem("looking_glass", asked, "a device's memory is a power of two", "32M, 64M, 128M, or the resolution")
            ]
        return []

    def _of_listen(self) -> Iterator[Problem]:
        if self.tls and not self.listen:
            yield Problem("tls", self.tls, "there is no listen", "say on which address: listen")
        if not self.listen:
            return
        if self.type != "vnc":
            yield Problem("listen", self.listen, f"only VNC has it, and display.type is {self.type}", 'set type = "vnc"')
        try:
            address, port = ipaddress.ip_address(self.address[0]), self.address[1]
        except ValueError:
            fix = "0.0.0.0:5901, 192.0.2.7:5901, or [::]:5901"
            yield Problem("listen", self.listen, "is not an address of this host and a port", fix)
            return
        if not 1 <= port <= _LAST_PORT:
            yield Problem("listen", self.listen, "ports are 1 to 65535", f"5900 to 5999 is usual: {address}:5901")
        if not self.tls and not address.is_loopback:
            reason = "without TLS all that is typed and shown is on the network in the clear"
            yield Problem("listen", self.listen, reason, "set tls, or listen on 127.0.0.1 and reach that by ssh -L")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: address and port. Raises ValueError where it does not."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def card(self) -> str:
        """The card as decided: ``auto`` is settled."""
        return self.video if self.video != "auto" else "none" if self.type == "none" else "virtio"


def check(resolved: Resolved) -> list[Problem]:
    """A protocol or card this QEMU was built without, or whose modules are not installed."""
    spec, qemu = resolved.spec.display, resolved.facts.qemu
    if spec.card == "virtio-gl":
        reason = "it draws with the host's graphics card, which QEMU does not reach behind its walls"
        return [Problem("display.video", spec.video, reason, "use virtio, or give the guest a card: pci = [...]")]
    if spec.card != "none" and not _driver(resolved):
        names = " or ".join(_DRIVERS[spec.card])
        more = f"install {SPICE_PACKAGE}, or " if spec.card == "qxl" else ""
        return [Problem("display.video", spec.video, f"{qemu.binary} has no {names}", f"{more}use virtio")]
    if spec.type != "none" and spec.card == "none" and not (spec.type == "spice" and spec.looking_glass):
        return [Problem("display.video", "none", f"{spec.type} shows what a card draws", "leave one of the two out")]
    if spec.type == "spice" and not has_spice(qemu):
        return [Problem("display.type", "spice", "this QEMU has no SPICE", f"install {SPICE_PACKAGE}, or use vnc")]
    if spec.redirected_usb and not qemu.has(f"type:{REDIRECTED}"):
        return [Problem("display.redirected_usb", spec.redirected_usb, f"{qemu.binary} has no {REDIRECTED}", "leave it out")]
    return []


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the graphics card, where there is a screen."""
    return (PciSlot("video"),) if resolved.spec.display.card not in ("none", "ramfb") else ()


def contribute(resolved: Resolved) -> Contribution:
    """``-display none`` always; a card and a server socket where a screen is asked for."""
    spec = resolved.spec.display
    quiet = Flag("display", Why("part display", "QEMU opens no window of its own"), "none")
    if spec.type == "none":
        seen = Why("spec display.video", "a card that nobody looks at but who asks QEMU for its picture")
        return Contribution((_card(resolved, seen),) if spec.card != "none" else (), (quiet,), notes=_undrawn(resolved))
    why = Why("spec display.type", f"a screen reached through {spec.type} on a socket only the owner can open")
    path = resolved.file(f"run/{spec.type}.sock")
    if spec.type == "vnc":
        heard = {"audiodev": "audio0"} if resolved.spec.devices.sound != "none" else {}
        return Contribution(
            (_card(resolved, why),), (quiet, Flag("vnc", why, f"unix:{path}", heard)), notes=_undrawn(resolved)
        )
    options = {"unix": "on", "addr": path, "disable-ticketing": "on"}
    if not spec.clipboard:
        options |= {"disable-copy-paste": "on", "disable-agent-file-xfer": "on"}
    card = (_card(resolved, why),) if spec.card != "none" else ()  # none: for Looking Glass, keyboard and pointer alone
    return Contribution((*card, *_agent()), (quiet, Flag("spice", why, options=options)), notes=_undrawn(resolved))


def _undrawn(resolved: Resolved) -> tuple[Note, ...]:
    """Where a card of a PC is not the one its firmware draws on, as this QEMU lacks that."""
    best, *_ = _DRIVERS.get(resolved.spec.display.card, ("",))
    if resolved.arch.name != "x86_64" or not best or _driver(resolved) == best:
        return ()
    binary, driver = resolved.facts.qemu.binary, _driver(resolved)
    told = f"the screen stays dark until the guest has a driver for {driver}: {binary} has no {best}"
    why = Why("host", "the firmware and boot loaders draw on VGA alone; a module's package may bring it")
    return (Note("warning", told, why),)


def _agent() -> Iterator[Element]:
    """The line to spice-vdagent in the guest: the size of the screen, the pointer, and what ``clipboard`` allows."""
    why = Why("spec display.type", "spice-vdagent in the guest fits the screen to the viewer's window")
    yield Element("chardev", {"id": "vdagent", "name": "vdagent"}, why, head="spicevmc")
    yield port("vdagent", SPICE_PORT, VDAGENT_PORT, why)


def _card(resolved: Resolved, why: Why) -> Element:
    slot: dict[str, Value] = {"addr": resolved.pci["video"]} if "video" in resolved.pci else {}
    return Element("device", {"driver": _driver(resolved), "id": "video", **slot}, why)


def _driver(resolved: Resolved) -> str:
    """The first device of that kind this binary has; empty where it has none."""
    return next((one for one in _DRIVERS[resolved.spec.display.card] if resolved.facts.qemu.has(f"type:{one}")), "")


PART = Part(contribute, needs, check)
