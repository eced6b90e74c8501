"""Devices every machine has unless told otherwise: random numbers, balloon, panic notification, generation id."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, Flag, Value, Why
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.settled import Need, PciSlot, Settled
from tinamou.units import Size


@dataclass(frozen=True)
class DeviceSpec:
    """The small devices."""

    rng: bool = option(
        True, "random numbers from the host, so that keys made at first boot are good and nothing waits for entropy"
    )
    balloon: bool = option(True, "memory the guest does not use can be seen and taken back")
    panic: bool = option(True, "the guest tells the host that its kernel panicked")
    hotplug: int | None = option(
        None,
        "slots for what is plugged in while it runs; 4 when left out, none if it is thrown away or forkable",
        minimum=0,
        maximum=32,
    )


_READ_ONLY_TEMPLATE = "property:memory-backend-file.rom"
"""A QEMU without it opens the template of a fork for writing, and a balloon would punch holes into it for all forks."""

_GENERATION = "vmgenid"
"""Left out where memory is encrypted: such a guest is never copied, and QEMU could not write a new number into it."""


def needs(spec: DeviceSpec, settled_panic: str) -> tuple[Need, ...]:
    """A slot for each that is a PCI device."""
    wanted = (("rng0-dev", spec.rng), ("balloon0", spec.balloon), ("panic0", spec.panic and settled_panic.endswith("-pci")))
    return tuple(PciSlot(name) for name, there in wanted if there)


def contribute(
    spec: DeviceSpec, settled: Settled, *, forkable: bool = False, locked: bool = False, floor: Size | None = None
) -> Contribution:
    """The devices that are wanted and that this QEMU has; a forkable machine has none that could harm its template.

    No page of memory that is ``locked`` for a device can be given back. ``floor`` is the least memory the watch may leave
    the guest, None where it may take none.
    """
    elements: list[Element] = []
    if spec.rng:
        why = Why("spec devices.rng", "random numbers from the host's kernel")
        elements.append(Element("object", {"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"}, why))
        elements.append(_pci("virtio-rng-pci", "rng0-dev", settled, why, rng="rng0"))
    if spec.balloon and (not forkable or settled.facts.qemu.has(_READ_ONLY_TEMPLATE)):
        elements.append(_balloon(settled, returns=not (forkable or locked), floor=floor))
    if spec.panic:
        elements += _panic(settled)
    fixed = [
        Element(
            "device",
            {"driver": driver, "id": driver, **({"guid": "auto"} if driver == _GENERATION else {})},
            Why("architecture", reason),
        )
        for driver, reason in settled.arch.devices
        if settled.facts.qemu.has(f"type:{driver}") and not (driver == _GENERATION and settled.encryption)
    ]
    return Contribution(elements=(*elements, *fixed), flags=_actions(spec))


def _pci(driver: str, name: str, settled: Settled, why: Why, **props: Value) -> Element:
    return Element("device", {"driver": driver, "id": name, "addr": settled.pci[name], **props}, why)


def _balloon(settled: Settled, *, returns: bool, floor: Size | None) -> Element:
    """A guest whose memory may be taken takes it back by itself before it ends a process: the watch may be late, or gone."""
    props: dict[str, Value] = {"free-page-reporting": returns}
    reason = "the guest reports its memory" + (" and gives back freed pages" if returns else "")
    if floor is None:
        return _pci("virtio-balloon-pci", "balloon0", settled, Why("spec devices.balloon", reason), **props)
    why = Why("spec memory.floor", f"{reason}; the watch may take all but {floor}, a guest that runs out takes it back")
    return _pci("virtio-balloon-pci", "balloon0", settled, why, **props, **{"deflate-on-oom": True})


def _panic(settled: Settled) -> list[Element]:
    device = settled.arch.panic_device
    why = Why("spec devices.panic", "a kernel panic is reported at once instead of being waited out")
    if not settled.facts.qemu.has(f"type:{device}"):
        return []
    if device.endswith("-pci"):
        return [_pci(device, "panic0", settled, why)]
    return [Element("device", {"driver": device, "id": "panic0"}, why)]


def _actions(spec: DeviceSpec) -> tuple[Flag, ...]:
    if not spec.panic:
        return ()
    why = Why("spec devices.panic", "a panicked guest stops where it is, so that it can be examined")
    return (Flag("action", why, options={"panic": "pause"}),)
