"""Each disk as it will be: which files it reads through, which one the guest writes to, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from tinamou.blueprint import Why
from tinamou.errors import Problem
from tinamou.facts import ChainFile, Facts
from tinamou.late import dataclass, replace
from tinamou.parts.disk.aio import choose
from tinamou.parts.disk.spec import DiskSpec
from tinamou.units import Size

__all__ = ["PlanDisk", "check_numbers", "disks", "numbered"]

Interface = Literal["virtio", "sata"]

_ENDINGS = {"img": "raw", "iso": "raw", "vhd": "vpc", "qcow2": "qcow2", "vmdk": "vmdk", "vhdx": "vhdx", "vdi": "vdi"}


@dataclass(frozen=True)
class PlanDisk:
    """One disk; its number gives node names (``disk0``) and device id (``disk0-dev``).

    ``files`` is its chain, top first; ``fresh`` says that the top has to be made, ``size`` how large it is then.
    """

    number: int
    files: tuple[ChainFile, ...]
    why: Why
    options: DiskSpec
    fresh: bool = False
    size: Size = Size(0)
    aio_why: str = ""

    @property
    def node(self) -> str:
        """The stem of the names of the disk's nodes."""
        return f"disk{self.number}"

    @property
    def device(self) -> str:
        """The id of the device in the guest."""
        return f"{self.node}-dev"

    @property
    def top(self) -> ChainFile:
        """The file the guest writes to."""
        return self.files[0]

    @property
    def readonly(self) -> bool:
        """Whether the guest cannot write."""
        return self.options.readonly or self.options.interface == "cdrom"


def disks(specs: Sequence[DiskSpec], facts: Facts, own_interface: Interface = "virtio") -> tuple[PlanDisk, ...]:
    """The image's disk first, as an overlay of the machine's own, then the user's in their order.

    No interface is ``auto`` any more; the image's disk is on ``own_interface``.
    """
    own = _image_disk(facts, own_interface)
    every = (*own, *(_user_disk(spec, number, facts) for number, spec in numbered(specs, len(own))))
    return tuple(_with_aio(disk, facts) for disk in every)


def _with_aio(disk: PlanDisk, facts: Facts) -> PlanDisk:
    aio, why = choose(disk.options, disk.files, facts)
    return replace(disk, options=replace(disk.options, aio=aio), aio_why=why)


def numbered(specs: Sequence[DiskSpec], first: int) -> Iterator[tuple[int, DiskSpec]]:
    """The user's disks with their numbers; ``first`` is how many the image has."""
    number = first
    for spec in specs:
        number = max(number, spec.number or 0)
        yield number, spec
        number += 1


def _image_disk(facts: Facts, interface: Interface) -> tuple[PlanDisk, ...]:
    image = facts.image
    if not image.disk:
        return ()
    below = facts.chains.get("image", (ChainFile(image.disk, image.format),))
    options = DiskSpec(path=image.disk, interface=interface)
    if image.format == "iso":
        why = Why("image", "an optical disc is read, never written")
        return (PlanDisk(0, (ChainFile(image.disk, "raw"),), why, replace(options, interface="cdrom")),)
    if known := facts.chains.get("disk0"):
        return (PlanDisk(0, known, Why("state", "the machine goes on with the disk it has"), options),)
    why = Why(
        "image", "the guest writes to an overlay of its own; the image stays as it is and is shared by all its machines"
    )
    top = ChainFile(facts.place.file("disk0.qcow2"), "qcow2", own=True)
    return (PlanDisk(0, (top, *below), why, options, fresh=True, size=image.size),)


def _user_disk(spec: DiskSpec, number: int, facts: Facts) -> PlanDisk:
    if known := facts.chains.get(f"disk{number}"):
        return PlanDisk(number, known, Why(f"spec disk[{number}]", "the disk that was asked for"), spec)
    if spec.size:
        new = spec.format if spec.format != "auto" else "qcow2"
        file = ChainFile(facts.place.file(f"disk{number}.{new}"), new, own=True, encrypted=bool(spec.key))
        return PlanDisk(number, (file,), Why(f"spec disk[{number}]", f"a new disk of {spec.size}"), spec, True, spec.size)
    kind = str(spec.format) if spec.format != "auto" else _ENDINGS.get(spec.path.rsplit(".", 1)[-1].lower(), "raw")
    file = ChainFile(spec.path, kind, encrypted=bool(spec.key))
    return PlanDisk(number, (file,), Why(f"spec disk[{number}]", "the file that was asked for"), spec)


def check_numbers(specs: Sequence[DiskSpec], first: int) -> list[Problem]:
    """Numbers that a disk before has already; ``first`` is how many the image has."""
    free, found = first, []
    for index, spec in enumerate(specs):
        if spec.number is not None and spec.number < free:
            reason, fix = "a disk before it has this number or a later one", f"leave it out, or choose {free} or more"
            found.append(Problem(f"disk[{index}].number", spec.number, reason, fix))
        free = max(free, spec.number or 0) + 1
    return found
