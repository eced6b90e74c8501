"""The host's PCI devices: what can be given to a guest, with which others, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field, replace
from tinamou.units import PciAddress, Size

VFIO = "vfio-pci"
"""The driver of a device that is a guest's, or waits to be."""

_BRIDGES, _TO_A_BUS = "06", "0604"
"""The class of all bridges, and of those with PCI devices behind them."""

_HARMLESS = ("", VFIO, "pci-stub")
"""Drivers that may have another device of a guest's IOMMU group: none of them lets it work."""


@dataclass(frozen=True)
class PciDevice:
    """One PCI function of the host (source: sysfs-bus-pci, Documentation/driver-api/vfio.rst).

    ``vendor``, ``device`` and ``code`` (class and subclass) are hexadecimal without a prefix, ``driver`` is the one that
    has it now, empty for none. ``group`` is its IOMMU group, None without an IOMMU; ``node`` its memory node, -1 where the
    host does not say. ``window`` is what its large (64-bit, prefetchable) memory regions take together. ``uses`` says, in
    words, what this host uses it for right now. ``resets``: the kernel can reset it alone. ``virtual``: it is a virtual
    function (SR-IOV), a device of its own whatever its address.
    """

    address: PciAddress
    vendor: str
    device: str
    code: str
    driver: str = ""
    group: int | None = None
    node: int = -1
    window: Size = field(default_factory=lambda: Size(0))
    uses: tuple[str, ...] = ()
    resets: bool = True
    virtual: bool = False
    kind: str = ""

    @property
    def ids(self) -> str:
        """``VENDOR:DEVICE``, what all cards of one kind share."""
        return f"{self.vendor}:{self.device}"

    @property
    def is_bridge(self) -> bool:
        """Whether it is a part of the host's board, which no guest can have."""
        return self.code.startswith(_BRIDGES)

    @property
    def at_rest(self) -> bool:
        """Whether no driver of the host works with it: else it keeps its whole IOMMU group from guests."""
        return self.driver in _HARMLESS

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.address), self.kind, self.ids)))


@dataclass(frozen=True)
class PciFacts:
    """All functions in order of their addresses, and what was leased.

    ``leased`` maps addresses to the machine that has them, without this machine's own. ``open_groups`` are the IOMMU groups
    whose device file this user may open without anyone's help. ``locked`` is how many bytes a process of this user may
    lock in memory, None for no limit. ``missing`` says why no device can be given away at all, empty where some can.
    """

    devices: tuple[PciDevice, ...] = ()
    leased: Mapping[str, str] = field(default_factory=dict)
    open_groups: frozenset[int] = frozenset()
    locked: int | None = None
    missing: str = ""

    def at(self, address: PciAddress) -> PciDevice | None:
        """The function of that address."""
        return next((one for one in self.devices if one.address == address), None)

    def card_of(self, device: PciDevice) -> tuple[PciDevice, ...]:
        """All functions of a device's card, itself included."""
        if device.virtual:
            return (device,)
        slot = replace(device.address, function=0)
        return tuple(one for one in self.devices if replace(one.address, function=0) == slot and not one.virtual)

    def group_of(self, device: PciDevice) -> tuple[PciDevice, ...]:
        """All functions of a device's IOMMU group, itself included, but for bridges to other buses: they stay the host's."""
        if device.group is None:
            return ()
        return tuple(one for one in self.devices if one.group == device.group and one.code != _TO_A_BUS)

    def holder(self, device: PciDevice) -> str:
        """The machine that has the device, or one of its group: they can only be leased together."""
        return next((self.leased[str(one.address)] for one in self.group_of(device) if str(one.address) in self.leased), "")
