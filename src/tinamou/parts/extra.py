"""Devices a machine has when they are asked for: sound, a watchdog, vsock, more serial ports.

Source: qemu(1), QEMU docs/system/device-emulation; each is asked of the binary before it is planned.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.blueprint import Contribution, Element, Flag, HandOver, Step, Value, Why
from tinamou.errors import Problem
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

__all__ = ["PART", "SOUND"]

SOUND = {"hda": "ich9-intel-hda", "virtio": "virtio-sound-pci"}
"""The device of each kind of sound card."""
_WATCHDOG = "i6300esb"
_VSOCK = "vhost-vsock-pci"
_VSOCK_DEVICE = "/dev/vhost-vsock"


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for each that is a PCI device."""
    spec = resolved.spec.devices
    ports = () if resolved.arch.isa_serial else tuple(f"serial-port{n}" for n in range(1, spec.serial + 1))
    wanted = (("sound0", spec.sound != "none"), ("watchdog0", spec.watchdog != "none"), ("vsock0", bool(spec.vsock)))
    return tuple(PciSlot(name) for name in (*(name for name, there in wanted if there), *ports))


def check(resolved: Resolved) -> list[Problem]:
    """What this binary, board or host lacks."""
    return list(_problems(resolved))


def _problems(resolved: Resolved) -> Iterator[Problem]:
    spec, qemu = resolved.spec.devices, resolved.facts.qemu
    serial = "isa-serial" if resolved.arch.isa_serial else "pci-serial"
    asked = (
        ("sound", spec.sound, SOUND.get(spec.sound, "")),
        ("watchdog", spec.watchdog, _WATCHDOG if spec.watchdog != "none" else ""),
        ("vsock", spec.vsock, _VSOCK if spec.vsock else ""),
        ("serial", spec.serial, serial if spec.serial else ""),
    )
    for name, value, driver in asked:
        if driver and not qemu.has(f"type:{driver}"):
            yield Problem(f"devices.{name}", value, f"{qemu.binary} has no {driver}", "use another QEMU, or leave it out")
    if spec.serial > resolved.arch.isa_serial > 0:
        reason = f"the board has room for {resolved.arch.isa_serial} beside the console"
        yield Problem("devices.serial", spec.serial, reason, f"set it to {resolved.arch.isa_serial} or less")
    if spec.vsock and _VSOCK_DEVICE not in resolved.facts.host.devices:
        yield Problem("devices.vsock", spec.vsock, f"this host has no {_VSOCK_DEVICE}", "modprobe vhost_vsock")
    if spec.vsock and resolved.spec.memory.forkable:
        yield Problem("devices.vsock", spec.vsock, "a fork would have the same address", "leave it out")
    if spec.sound == "virtio" and resolved.spec.memory.forkable:
        reason = "QEMU cannot save the state of this card, which forks start from"
        yield Problem("devices.sound", spec.sound, reason, "use hda, or forkable = false")


def contribute(resolved: Resolved) -> Contribution:
    """Each that was asked for."""
    parts = (_sound(resolved), _watchdog(resolved), _vsock(resolved), *_serial(resolved))
    return Contribution.merge(list(parts))


def _sound(resolved: Resolved) -> Contribution:
    kind = resolved.spec.devices.sound
    if kind == "none":
        return Contribution()
    spice = resolved.spec.display.type == "spice"
    heard = (
        "who looks at the screen hears it" if resolved.spec.display.type != "none" else "nobody hears it: there is no screen"
    )
    why = Why("spec devices.sound", f"a sound card; {heard}")
    back = Element("audiodev", {"driver": "spice" if spice else "none", "id": "audio0"}, why)
    card: dict[str, Value] = {"driver": SOUND[kind], "id": "sound0", **resolved.slot("sound0")}
    if kind == "virtio":
        return Contribution((back, Element("device", {**card, "audiodev": "audio0"}, why)))
    codec: dict[str, Value] = {"driver": "hda-duplex", "id": "sound0-codec", "bus": "sound0.0", "audiodev": "audio0"}
    return Contribution((back, Element("device", card, why), Element("device", codec, why)))


def _watchdog(resolved: Resolved) -> Contribution:
    action = resolved.spec.devices.watchdog
    if action == "none":
        return Contribution()
    why = Why("spec devices.watchdog", f"a guest that no longer feeds its watchdog: {action}")
    device = {"driver": _WATCHDOG, "id": "watchdog0", **resolved.slot("watchdog0")}
    return Contribution((Element("device", device, why),), (Flag("action", why, options={"watchdog": action}),))


def _vsock(resolved: Resolved) -> Contribution:
    address = resolved.spec.devices.vsock
    if not address:
        return Contribution()
    why = Why("spec devices.vsock", f"host and guest speak over AF_VSOCK, without a network; the guest is number {address}")
    device: dict[str, Value] = {"driver": _VSOCK, "id": "vsock0", **resolved.slot("vsock0"), "guest-cid": address}
    hand = HandOver(_VSOCK_DEVICE, "write", Why("confinement", "QEMU is handed the open device"))
    return Contribution((Element("device", {**device, "vhostfd": _VSOCK_DEVICE}, why),), steps=(hand,))


def _serial(resolved: Resolved) -> Iterator[Contribution]:
    for number in range(1, resolved.spec.devices.serial + 1):
        name = f"serial{number}"
        path = resolved.file(f"run/{name}.sock")
        why = Why("spec devices.serial", f"one more serial port, on a socket ({path}); what nobody reads is lost")
        chardev: dict[str, Value] = {"id": name, "path": path, "server": True, "wait": False}
        steps: tuple[Step, ...] = (HandOver(path, "listen", why),)
        elements = (Element("chardev", chardev, why, head="socket"),)
        if resolved.arch.isa_serial:
            yield Contribution(elements, (Flag("serial", why, f"chardev:{name}"),), steps)
        else:
            device: dict[str, Value] = {"driver": "pci-serial", "id": f"serial-port{number}", "chardev": name}
            yield Contribution(
                (*elements, Element("device", {**device, **resolved.slot(f"serial-port{number}")}, why)), (), steps
            )


PART = Part(contribute, needs, check)
