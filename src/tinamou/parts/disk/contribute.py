"""What a disk adds to the plan: files made or handed over, nodes, and the device the guest sees."""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.blueprint import Contribution, CreateImage, CreateOverlay, Element, HandOver, Step, Value, Why
from tinamou.errors import Problem
from tinamou.parts import windows
from tinamou.parts.disk import aio
from tinamou.parts.disk.disk import PlanDisk, check_numbers, numbered
from tinamou.parts.disk.nodes import guest_node, nodes, writes
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved

_HAND = Why("confinement", "QEMU is handed the open file and needs no right to its path")


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A PCI slot for each disk that is a PCI device of its own."""
    return tuple(PciSlot(disk.device, disk.options.port) for disk in resolved.disks if disk.device not in on_sata(resolved))


def check(resolved: Resolved) -> list[Problem]:
    """Numbers that are taken, ways of queueing and cache modes that cannot be had here."""
    specs, facts = resolved.spec.disk, resolved.facts
    first = 1 if facts.image.disk else 0
    return [
        *check_numbers(specs, first),
        *aio.check(list(numbered(specs, first)), facts),
        *_check_sata(resolved),
        *_check_packed(resolved),
    ]


def _check_packed(resolved: Resolved) -> Iterator[Problem]:
    for disk in resolved.disks:
        if disk.top.packed and not disk.readonly:
            reason = "its data is packed (streamOptimized): a guest's writes would fail, even where the disk is empty"
            fix = "tinamou image import makes it an image, which a machine's own overlay is written over; or readonly = true"
            yield Problem(f"{disk.node}.path", disk.top.path, reason, fix)


def on_sata(resolved: Resolved) -> dict[str, int]:
    """The SATA port of each disk that sits on one: discs too of a Windows, whose setup knows no other."""
    kinds = ("sata", "cdrom") if windows.release(resolved.spec) else ("sata",)
    there = [disk for disk in resolved.disks if disk.options.interface in kinds]
    return {disk.device: port for port, disk in enumerate(there)}


def _check_sata(resolved: Resolved) -> list[Problem]:
    count, ports = len(on_sata(resolved)), resolved.arch.sata_ports
    if count <= ports:
        return []
    reason = (
        f"the board has {ports} SATA ports, and {count} disks and discs are on them"
        if ports
        else "this board has no SATA ports"
    )
    return [Problem("disk.interface", "sata", reason, "use interface virtio, scsi or nvme")]


def elements(resolved: Resolved) -> dict[int, Contribution]:
    """Files made or handed over, blockdev nodes and devices of each disk."""
    return {
        disk.number: Contribution((*nodes(disk), *_device(disk, resolved)), steps=tuple(_steps(disk, resolved)))
        for disk in resolved.disks
    }


def contribute(resolved: Resolved) -> Contribution:
    """All disks, in their order."""
    return Contribution.merge(list(elements(resolved).values()))


def _steps(disk: PlanDisk, resolved: Resolved) -> Iterator[Step]:
    top = disk.top
    if disk.fresh and len(disk.files) > 1:
        below = disk.files[1]
        kind = "raw" if below.format == "iso" else below.format
        yield CreateOverlay(top.path, below.path, kind, disk.size, disk.why, resolved.owner)
    elif disk.fresh:
        yield CreateImage(top.path, top.format, disk.size, disk.why, resolved.owner, disk.options.key)
    if disk.options.key:
        yield HandOver(disk.options.key, "secret", _HAND)
    for file in disk.files:
        yield HandOver(file.path, "write" if writes(disk, file) else "read", _HAND)


def _device(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    interface = disk.options.interface
    if disk.options.iothread:
        why = Why(f"spec disk[{disk.number}].iothread", "requests of this disk are served beside the main loop")
        yield Element("object", {"qom-type": "iothread", "id": f"{disk.node}-io"}, why)
    kinds = {"nvme": _nvme, "cdrom": _cdrom, "scsi": _scsi, "virtio": _virtio, "sata": _sata}
    yield from kinds[interface](disk, resolved)


def _common(disk: PlanDisk, resolved: Resolved) -> dict[str, Value]:
    """Firmware tries disks in the order asked for, then in theirs; a kernel that QEMU was given is before all."""
    props: dict[str, Value] = {"id": disk.device, "drive": guest_node(disk)}
    if disk.options.block_size != 512:
        props |= {"logical_block_size": disk.options.block_size, "physical_block_size": disk.options.block_size}
    if resolved.hands_kernel:
        return props
    order = resolved.spec.boot.disks
    return {**props, "bootindex": order.index(disk.node) if disk.node in order else len(order) + disk.number}


def _queues(disk: PlanDisk) -> dict[str, Value]:
    props: dict[str, Value] = {}
    if disk.options.iothread:
        props["iothread"] = f"{disk.node}-io"
    if disk.options.queues:
        props["num-queues" if disk.options.interface == "virtio" else "num_queues"] = disk.options.queues
    return props


def _writing(disk: PlanDisk) -> dict[str, Value]:
    """Whether the guest has to flush, and whether a write that finds no space fails; QEMU pauses the guest by itself."""
    cached = "off" if disk.options.cache in ("writethrough", "directsync") else "on"
    return {"write-cache": cached, **({"werror": "report"} if disk.options.on_full == "error" else {})}


def _virtio(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    why = Why("part disk", "virtio-blk: the shortest path from guest to file, without emulated hardware")
    props: dict[str, Value] = {"driver": "virtio-blk-pci", **_common(disk, resolved), **resolved.slot(disk.device)}
    yield Element("device", {**props, "serial": disk.node, **_writing(disk), **_queues(disk)}, why)


def _nvme(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    why = Why("spec disk.interface", "an NVMe drive, for guests without virtio drivers")
    props: dict[str, Value] = {"driver": "nvme", "serial": disk.node, **_common(disk, resolved)}
    yield Element("device", {**props, **resolved.slot(disk.device)}, why)


def _controller(disk: PlanDisk, resolved: Resolved, why: Why) -> Element:
    props: dict[str, Value] = {"driver": "virtio-scsi-pci", "id": f"{disk.node}-bus", **resolved.slot(disk.device)}
    return Element("device", {**props, **_queues(disk)}, why)


def _scsi(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    why = Why("spec disk.interface", "a SCSI disk on virtio-scsi: many on one controller, reservations, unmap")
    yield _controller(disk, resolved, why)
    props: dict[str, Value] = {"driver": "scsi-hd", **_common(disk, resolved), "bus": f"{disk.node}-bus.0"}
    yield Element("device", {**props, "serial": disk.node, **_writing(disk)}, why)


def _sata(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    why = Why("spec disk.interface", "a disk on a SATA port of the board: slow, and known to every guest")
    props: dict[str, Value] = {
        "driver": "ide-hd",
        **_common(disk, resolved),
        "bus": f"ide.{on_sata(resolved)[disk.device]}",
    }
    yield Element("device", {**props, "serial": disk.node, **_writing(disk)}, why)


def _cdrom(disk: PlanDisk, resolved: Resolved) -> Iterator[Element]:
    if (port := on_sata(resolved).get(disk.device)) is not None:
        known = Why("spec os", "an optical drive on a SATA port, which the setup of Windows knows")
        yield Element("device", {"driver": "ide-cd", **_common(disk, resolved), "bus": f"ide.{port}"}, known)
        return
    why = Why("part disk", "an optical drive on virtio-scsi, whose disc can be changed while the guest runs")
    yield _controller(disk, resolved, why)
    yield Element("device", {"driver": "scsi-cd", **_common(disk, resolved), "bus": f"{disk.node}-bus.0"}, why)


PART = Part(contribute, needs, check, elements)
