"""Examines parts of cards that drivers make devices of (mdev: vGPU): their kinds, and those that there are."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tinamou.facts.pci import Mediated, MediatedDevice
from tinamou.system.rooted import Rooted
from tinamou.units import PciAddress

__all__ = ["kinds", "made"]

_MADE = "/sys/bus/mdev/devices"


def kinds(files: Rooted, place: str) -> Iterator[Mediated]:
    """What the driver of the card at that place can make (source: Documentation/driver-api/vfio-mediated-device.rst)."""
    types = f"{place}/mdev_supported_types"
    for kind in files.names(types):
        gives = " ".join((files.read(f"{types}/{kind}/description") or "").split())
        name = files.read(f"{types}/{kind}/name") or kind
        yield Mediated(kind, name, files.integer(f"{types}/{kind}/available_instances") or 0, gives)


def made(files: Rooted) -> Iterator[MediatedDevice]:
    """Every one there is, but for those of what is no PCI card."""
    for uuid in files.names(_MADE):
        card = files.path(f"{_MADE}/{uuid}")
        group = files.target(f"{_MADE}/{uuid}/iommu_group")
        try:
            address = PciAddress.parse(_above(card))
        except ValueError:
            continue
        yield MediatedDevice(
            uuid, address, files.target(f"{_MADE}/{uuid}/mdev_type"), int(group) if group.isdecimal() else None
        )


def _above(link: str) -> str:
    """The name of the folder that a link's folder is in: the card's."""
    return os.path.realpath(link).split("/")[-2]
