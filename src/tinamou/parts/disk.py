"""Disks: the image's own, and those the user adds; each is a chain of blockdev nodes and a device in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinamou.blueprint import Contribution, CreateImage, CreateOverlay, Element, HandOver, Step, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.parts.settled import Need, PciSlot, Settled
from tinamou.units import Size


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One more disk: an existing file, or a new empty one of the given size."""

    shorthand = "path"

    path: str = option("", "an existing image file")
    size: Size | None = option(None, "size of a new, empty disk", minimum=1 << 20)
    format: Literal["auto", "qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc"] = option(
        "auto", "format of the file; a new disk is qcow2"
    )
    readonly: bool = option(False, "the guest cannot write to it")
    interface: Literal["virtio", "nvme", "cdrom"] = option("virtio", "the device the guest sees")
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = option(
        "writeback", "who may hold data back: writeback uses the host's page cache and honours the guest's flushes"
    )
    aio: Literal["threads", "native", "io_uring"] = option(
        "threads", "how QEMU reads and writes: native needs cache none or directsync"
    )
    discard: bool = option(True, "space the guest frees is given back to the host")

    def problems(self) -> list[Problem]:
        """Neither or both of path and size; aio that the cache mode forbids."""
        found = []
        if bool(self.path) == bool(self.size):
            both = "given together" if self.path else "both missing"
            found.append(
                Problem(
                    "path", self.path, f"path and size are {both}", "give an existing file's path, or the size of a new disk"
                )
            )
        if self.aio == "native" and self.cache not in ("none", "directsync"):
            reason = "native needs O_DIRECT, which this cache mode does not use"
            found.append(Problem("aio", self.aio, f"{reason} (cache = {self.cache})", "set cache = none, or aio = io_uring"))
        if self.interface == "cdrom" and self.size:
            found.append(Problem("size", str(self.size), "a cdrom cannot be a new, empty disk", "give the path of an iso"))
        return found


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk as it will be: its number gives node names (``disk0``) and device id (``disk0-dev``)."""

    number: int
    file: str
    format: str
    why: Why
    base: str = ""
    base_format: str = ""
    readonly: bool = False
    interface: str = "virtio"
    cache: str = "writeback"
    aio: str = "threads"
    discard: bool = True
    serial: str = ""

    @property
    def node(self) -> str:
        """The name of the format node the guest's device is attached to."""
        return f"disk{self.number}"

    @property
    def device(self) -> str:
        """The id of the device in the guest."""
        return f"{self.node}-dev"


def disks(specs: Sequence[DiskSpec], settled: Settled) -> tuple[Disk, ...]:
    """The image's disk first, as an overlay of the machine's own, then the user's in their order."""
    own = _image_disk(settled)
    first = len(own)
    return (*own, *(_user_disk(spec, first + index, settled) for index, spec in enumerate(specs)))


def _image_disk(settled: Settled) -> tuple[Disk, ...]:
    image = settled.facts.image
    if not image.disk:
        return ()
    if image.format == "iso":
        why = Why("image", "an optical disc is read, never written")
        return (Disk(0, image.disk, "raw", why, readonly=True, interface="cdrom"),)
    why = Why(
        "image", "the guest writes to an overlay of its own; the image stays as it is and is shared by all its machines"
    )
    return (Disk(0, settled.file("disk0.qcow2"), "qcow2", why, base=image.disk, base_format=image.format),)


def _user_disk(spec: DiskSpec, number: int, settled: Settled) -> Disk:
    kind: str = spec.format if spec.format != "auto" else "qcow2"
    if spec.size:
        file, why = settled.file(f"disk{number}.{kind}"), Why(f"spec disk[{number}]", f"a new disk of {spec.size}")
    else:
        file, why = spec.path, Why(f"spec disk[{number}]", "the file that was asked for")
        kind = spec.format if spec.format != "auto" else _format_of(spec.path)
    return Disk(
        number,
        file,
        kind,
        why,
        readonly=spec.readonly or spec.interface == "cdrom",
        interface=spec.interface,
        cache=spec.cache,
        aio=spec.aio,
        discard=spec.discard,
    )


def _format_of(path: str) -> str:
    """The format a file's ending stands for; settled before planning where a file has been inspected."""
    ending = path.rsplit(".", 1)[-1].lower()
    return {"img": "raw", "iso": "raw", "vhd": "vpc", "qcow2": "qcow2", "vmdk": "vmdk", "vhdx": "vhdx", "vdi": "vdi"}.get(
        ending, "raw"
    )


def needs(every: Sequence[Disk]) -> tuple[Need, ...]:
    """A PCI slot for each disk that is a PCI device of its own."""
    return tuple(PciSlot(disk.device) for disk in every)


def contribute(specs: Sequence[DiskSpec], every: Sequence[Disk], settled: Settled) -> Contribution:
    """Files made or handed over, blockdev nodes, devices."""
    sizes = {f"disk{number}": spec.size for number, spec in enumerate(specs, len(every) - len(specs))}
    steps = [step for disk in every for step in _steps(disk, sizes.get(disk.node), settled)]
    elements = [element for disk in every for element in (*_nodes(disk), *_device(disk, settled))]
    return Contribution(elements=tuple(elements), steps=tuple(steps))


def _steps(disk: Disk, size: Size | None, settled: Settled) -> list[Step]:
    steps: list[Step] = []
    hand = Why("confinement", "QEMU is handed the open file and needs no right to its path")
    if disk.base:
        image = settled.facts.image
        steps.append(CreateOverlay(disk.file, disk.base, disk.base_format, image.size, disk.why, settled.owner))
        steps.append(HandOver(disk.base, "read", hand))
    elif size:
        steps.append(CreateImage(disk.file, disk.format, size, disk.why, settled.owner))
    steps.append(HandOver(disk.file, "read" if disk.readonly else "write", hand))
    return steps


def _nodes(disk: Disk) -> list[Element]:
    nodes = []
    if disk.base:
        below = Why("image", "the image all its machines share, never written")
        props: dict[str, Value] = {"driver": disk.base_format, "node-name": f"{disk.node}-base", "read-only": True}
        nodes.append(Element("blockdev", {**props, "file": _file(disk, disk.base, read_only=True)}, below))
    props = {"driver": disk.format, "node-name": disk.node, "read-only": disk.readonly, **_cache(disk)}
    if disk.discard and not disk.readonly:
        props["discard"] = "unmap"
    if disk.base:
        props["backing"] = f"{disk.node}-base"
    nodes.append(Element("blockdev", {**props, "file": _file(disk, disk.file, read_only=disk.readonly)}, disk.why))
    return nodes


def _file(disk: Disk, path: str, *, read_only: bool) -> dict[str, Value]:
    props: dict[str, Value] = {"driver": "file", "filename": path, "read-only": read_only, "aio": disk.aio, **_cache(disk)}
    if disk.discard and not read_only:
        props["discard"] = "unmap"
    return props


def _cache(disk: Disk) -> dict[str, Value]:
    direct = disk.cache in ("none", "directsync")
    return {"cache": {"direct": direct, "no-flush": disk.cache == "unsafe"}} if direct or disk.cache == "unsafe" else {}


def _device(disk: Disk, settled: Settled) -> list[Element]:
    through = disk.cache in ("writethrough", "directsync")
    common: dict[str, Value] = {"id": disk.device, "drive": disk.node, "addr": settled.pci[disk.device]}
    if disk.number == 0:
        common["bootindex"] = 0
    if disk.interface == "nvme":
        why = Why("spec disk.interface", "an NVMe drive, for guests without virtio drivers")
        return [Element("device", {"driver": "nvme", "serial": disk.node, **common}, why)]
    if disk.interface == "cdrom":
        return _cdrom(disk, settled)
    why = Why("part disk", "virtio-blk: the shortest path from guest to file, without emulated hardware")
    queues: dict[str, Value] = {"serial": disk.serial or disk.node, "write-cache": "off" if through else "on"}
    return [Element("device", {"driver": "virtio-blk-pci", **common, **queues}, why)]


def _cdrom(disk: Disk, settled: Settled) -> list[Element]:
    why = Why("part disk", "an optical drive on virtio-scsi, whose disc can be changed while the guest runs")
    bus = f"{disk.node}-bus"
    props: dict[str, Value] = {
        "driver": "scsi-cd",
        "id": disk.device,
        "drive": disk.node,
        "bus": f"{bus}.0",
        "bootindex": disk.number,
    }
    controller: dict[str, Value] = {"driver": "virtio-scsi-pci", "id": bus, "addr": settled.pci[disk.device]}
    return [Element("device", controller, why), Element("device", props, why)]
