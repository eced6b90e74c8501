"""Devices every machine has unless told otherwise: random numbers, balloon, panic notification, generation id."""

from __future__ import annotations

from typing import Literal

from tinamou.blueprint import Contribution, Element, Flag, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved


@dataclass(frozen=True)
class DeviceSpec:
    """The small devices."""

    rng: bool = option(
        True, "random numbers from the host, so that keys made at first boot are good and nothing waits for entropy"
    )
    balloon: bool = option(True, "memory the guest does not use can be seen and taken back")
    panic: bool = option(True, "the guest tells the host that its kernel panicked")
    sound: Literal["none", "hda", "virtio"] = option("none", "a sound card, heard through the screen's server")
    watchdog: Literal["none", "reset", "poweroff", "shutdown", "pause", "inject-nmi", "debug"] = option(
        "none", "a watchdog (i6300esb), and what is done where the guest no longer feeds it"
    )
    vsock: int = option(
        0, "the guest's number on AF_VSOCK, from 3; 0: none", minimum=0, maximum=0xFFFFFFFE, hint="0, or 3 and more"
    )
    serial: int = option(0, "more serial ports, on sockets run/serial1.sock, … of the machine", minimum=0, maximum=4)
    iommufd: Literal["auto", "on", "off"] = option(
        "auto",
        "devices of the host are handed to QEMU open, one by one, not by their group; auto: where kernel and QEMU can",
    )
    hotplug: int | None = option(
        None,
        "slots for what is plugged in while it runs; 4 when left out, none if it is thrown away or forkable",
        minimum=0,
        maximum=32,
    )

    def problems(self) -> list[Problem]:
        """Numbers of the host and the hypervisor."""
        taken = self.vsock in (1, 2)
        return [Problem("vsock", self.vsock, "this number is the host's", "3 or more")] if taken else []


_READ_ONLY_TEMPLATE = "property:memory-backend-file.rom"
"""A QEMU without it opens the template of a fork for writing, and a balloon would punch holes into it for all forks."""

_GENERATION = "vmgenid"
"""Left out where memory is encrypted: such a guest is never copied, and QEMU could not write a new number into it."""


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for each that is a PCI device."""
    spec, panic = resolved.spec.devices, _panic_on_pci(resolved)
    wanted = (("rng0-dev", spec.rng), ("balloon0", _has_balloon(resolved)), ("panic0", spec.panic and panic))
    return tuple(PciSlot(name) for name, there in wanted if there)


def _has_balloon(resolved: Resolved) -> bool:
    """QEMU gives no page back of a guest whose memory is encrypted."""
    return resolved.spec.devices.balloon and resolved.encryption is None


def contribute(resolved: Resolved) -> Contribution:
    """The devices that are wanted and that this QEMU has; a forkable machine has none that could harm its template."""
    spec = resolved.spec.devices
    elements: list[Element] = []
    if spec.rng:
        why = Why("spec devices.rng", "random numbers from the host's kernel")
        elements.append(Element("object", {"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"}, why))
        elements.append(_device("virtio-rng-pci", "rng0-dev", why, **resolved.slot("rng0-dev"), rng="rng0"))
    if _has_balloon(resolved) and (not resolved.spec.memory.forkable or resolved.facts.qemu.has(_READ_ONLY_TEMPLATE)):
        elements.append(_balloon(resolved))
    if spec.panic and resolved.facts.qemu.has(f"type:{resolved.arch.panic_device}"):
        why = Why("spec devices.panic", "a kernel panic is reported at once instead of being waited out")
        seat = resolved.slot("panic0") if _panic_on_pci(resolved) else {}
        elements.append(_device(resolved.arch.panic_device, "panic0", why, **seat))
    for driver, reason in resolved.arch.devices:
        if resolved.facts.qemu.has(f"type:{driver}") and not (driver == _GENERATION and resolved.encryption):
            more: dict[str, Value] = {"guid": "auto"} if driver == _GENERATION else {}
            elements.append(_device(driver, driver, Why("architecture", reason), **more))
    stops = Why("spec devices.panic", "a panicked guest stops where it is, so that it can be examined")
    return Contribution(tuple(elements), (Flag("action", stops, options={"panic": "pause"}),) if spec.panic else ())


def _panic_on_pci(resolved: Resolved) -> bool:
    return resolved.arch.panic_device.endswith("-pci")


def _device(driver: str, name: str, why: Why, **props: Value) -> Element:
    return Element("device", {"driver": driver, "id": name, **props}, why)


def _balloon(resolved: Resolved) -> Element:
    """A guest whose memory may be taken takes it back by itself before it ends a process: the watch may be late, or gone.

    No page of a template is given back, nor one that is locked for a device of the host.
    """
    memory = resolved.spec.memory
    floor, returns = memory.floor, not (memory.forkable or resolved.assigned)
    props = {**resolved.slot("balloon0"), "free-page-reporting": returns}
    reason = "the guest reports its memory" + (" and gives back freed pages" if returns else "")
    why = Why("spec devices.balloon", reason)
    if floor is not None:
        props["deflate-on-oom"] = True
        reason += f"; the watch may take all but {floor}, a guest that runs out takes it back"
        why = Why("spec memory.floor", reason)
    return _device("virtio-balloon-pci", "balloon0", why, **props)


PART = Part(contribute, needs)
