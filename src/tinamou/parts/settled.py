"""What has been settled for the whole machine when a part contributes, and the needs a part states beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from tinamou.arch import Arch
from tinamou.blueprint import Value, Why
from tinamou.facts import Facts, Firmware
from tinamou.facts.accel import Trial
from tinamou.late import dataclass

__all__ = ["Encryption", "Need", "PciSlot", "Settled", "SharedMemory"]


@dataclass(frozen=True)
class PciSlot:
    """The device with this id wants a slot on the PCI root bus, or one of the slots for hot plugging, numbered from 1."""

    device: str
    port: int | None = None


@dataclass(frozen=True)
class SharedMemory:
    """Another process must see the guest's memory (virtiofsd, vhost-user)."""

    why: Why


Need = PciSlot | SharedMemory


@dataclass(frozen=True)
class Encryption:
    """The guest's memory is encrypted: ``sev``, ``sev-es``, ``sev-snp`` or ``tdx``, started by ``firmware``, booted so."""

    kind: str
    firmware: Firmware
    boot: str


@dataclass(frozen=True)
class Settled:
    """The shared decisions: architecture, accelerator, way of booting, order of disks, PCI addresses by device id.

    ``pvh`` says that a kernel may be entered through PVH. ``ports`` names the hot-plug slots of the devices that sit in
    one. ``encryption`` is None where the host can read the guest's memory.
    """

    facts: Facts
    arch: Arch
    accel: Trial
    boot: str
    order: tuple[str, ...]
    pvh: bool
    pci: Mapping[str, str]
    ports: Mapping[str, str] = field(default_factory=dict)
    encryption: Encryption | None = None

    def seat(self, device: str) -> dict[str, Value]:
        """Where a device sits, as properties: an address on the root bus, or the bus that is its hot-plug slot."""
        return {"bus": self.ports[device]} if device in self.ports else {"addr": self.pci[device]}

    def file(self, name: str) -> str:
        """The path of one of the machine's own files."""
        return self.facts.place.file(name)

    @property
    def owner(self) -> int | None:
        """The uid QEMU runs under when it is not the user's own."""
        return self.facts.place.uid
