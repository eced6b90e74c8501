"""What a part of a machine is: pure functions over one resolved context; and that context, with the needs it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tinamou.arch import Arch
from tinamou.blueprint import Contribution, Note, Value, Why
from tinamou.errors import Problem
from tinamou.facts import Facts, Firmware, MachineType, Trial
from tinamou.late import dataclass, field

if TYPE_CHECKING:
    from tinamou.parts.disk import PlanDisk
    from tinamou.parts.passthrough import AssignedDevice
    from tinamou.spec import MachineSpec
    from tinamou.tuning.resources import Resources

__all__ = ["Encryption", "Need", "Part", "PciSlot", "Resolved", "SharedMemory"]


@dataclass(frozen=True)
class PciSlot:
    """The device with this id needs a slot on the PCI root bus, or one of the slots for hot plugging, numbered from 1."""

    device: str
    port: int | None = None


@dataclass(frozen=True)
class SharedMemory:
    """Another process must see the guest's memory (virtiofsd, vhost-user)."""

    why: Why


Need = PciSlot | SharedMemory


@dataclass(frozen=True)
class Encryption:
    """The guest's memory is encrypted: ``sev``, ``sev-es``, ``sev-snp`` or ``tdx``, started by ``firmware``."""

    kind: str
    firmware: Firmware


@dataclass(frozen=True)
class Resolved:
    """The machine that was requested, the facts, and every decision that is not one part's alone.

    ``machine`` is the versioned board, ``boot`` the way of booting. ``encryption`` is None where the host can read the
    guest's memory. ``pci`` has addresses on the root bus by device id, ``ports`` the hot-plug slots, of which there are
    ``hotplug``, of the devices that sit in one; ``resources`` what the machine gets of the host, nothing before all is
    checked. ``problems`` rule out what was requested, ``notes`` the user must hear.
    """

    spec: MachineSpec
    facts: Facts
    arch: Arch
    machine: MachineType
    accel: Trial
    accel_why: Why
    boot: str
    disks: tuple[PlanDisk, ...]
    assigned: tuple[AssignedDevice, ...]
    resources: Resources
    encryption: Encryption | None = None
    needs: tuple[Need, ...] = ()
    pci: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, str] = field(default_factory=dict)
    hotplug: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()

    def slot(self, device: str) -> dict[str, Value]:
        """Where a device sits, as properties: an address on the root bus, or the bus that is its hot-plug slot."""
        return {"bus": self.ports[device]} if device in self.ports else {"addr": self.pci[device]}

    def file(self, name: str) -> str:
        """The path of one of the machine's own files."""
        return self.facts.place.file(name)

    @property
    def hands_kernel(self) -> bool:
        """Whether QEMU is given a kernel: to start it, or for the firmware to."""
        return self.boot == "direct" or bool(self.spec.boot.kernel)

    @property
    def owner(self) -> int | None:
        """The uid QEMU runs under when it is not the user's own."""
        return self.facts.place.uid


class Part(NamedTuple):
    """What one part adds to a machine; what it needs beforehand; what of it cannot be had on this host.

    The order is needs, check, contribute: needs are asked before slots are given out, and nothing is contributed where a
    check found a problem. ``elements`` are contributions by number of a part that has several (``net1``, ``disk2``), each
    of which can be plugged in by itself.
    """

    contribute: Callable[[Resolved], Contribution] = lambda _: Contribution()
    needs: Callable[[Resolved], tuple[Need, ...]] = lambda _: ()
    check: Callable[[Resolved], list[Problem]] = lambda _: []
    elements: Callable[[Resolved], Mapping[int, Contribution]] = lambda _: {}
