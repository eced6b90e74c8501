"""What has been settled for the whole machine when a part contributes, and the needs a part states beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinamou.arch import Arch
from tinamou.blueprint import Why
from tinamou.facts import Facts
from tinamou.facts.accel import Trial

__all__ = ["Need", "PciSlot", "Settled", "SharedMemory"]


@dataclass(frozen=True, slots=True)
class PciSlot:
    """The device with this id wants a slot on the PCI root bus."""

    device: str


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Another process must see the guest's memory (virtiofsd, vhost-user)."""

    why: Why


Need = PciSlot | SharedMemory


@dataclass(frozen=True, slots=True)
class Settled:
    """The shared decisions: architecture, accelerator, way of booting, order of disks, PCI addresses by device id.

    ``once`` says that the guest starts one single time: it is neither kept nor copied nor reset.
    """

    facts: Facts
    arch: Arch
    accel: Trial
    boot: str
    order: tuple[str, ...]
    once: bool
    pci: Mapping[str, str]

    def file(self, name: str) -> str:
        """The path of one of the machine's own files."""
        return self.facts.place.file(name)

    @property
    def owner(self) -> int | None:
        """The uid QEMU runs under when it is not the user's own."""
        return self.facts.place.uid
