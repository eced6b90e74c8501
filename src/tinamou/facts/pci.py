"""The host's PCI devices: what can be given to a guest, with which others, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field, replace
from tinamou.units import CpuSet, PciAddress, Size

VFIO = "vfio-pci"
"""The driver of a device that is a guest's, or waits to be."""

IOMMU = "/dev/iommu"
"""By it devices are kept to a guest's memory one by one (IOMMUFD; source: Documentation/userspace-api/iommufd.rst)."""

_BRIDGES, _TO_A_BUS, _OTHER_BRIDGE = "06", "0604", "0680"
"""The class of all bridges, of those with PCI devices behind them, and of those of no other kind."""

NVIDIA = "10de"

_HARMLESS = ("", VFIO, "pci-stub")
"""Drivers that may have another device of a guest's IOMMU group: none of them lets it work."""


@dataclass(frozen=True)
class Mediated:
    """One kind of device that a driver makes of a part of its card: its name in sysfs, what its maker calls it, how many
    more of it there can be, and what each has, in the maker's words (source: Documentation/driver-api/vfio-mediated-device).
    """

    type: str
    name: str
    free: int
    gives: str = ""


@dataclass(frozen=True)
class MediatedDevice:
    """One device that a driver has made of a part of its card: its UUID, the card's address, its kind and IOMMU group."""

    uuid: str
    card: PciAddress
    type: str
    group: int | None = None

    @property
    def place(self) -> str:
        """Its folder in sysfs, by which QEMU knows it."""
        return f"/sys/bus/mdev/devices/{self.uuid}"

    @property
    def opened(self) -> str:
        """The folder that tells which file in /dev/vfio/devices is the device's."""
        return f"{self.place}/vfio-dev"


@dataclass(frozen=True)
class PciDevice:
    """One PCI function of the host (source: sysfs-bus-pci, Documentation/driver-api/vfio.rst).

    ``vendor``, ``device`` and ``code`` (class and subclass) are hexadecimal without a prefix, ``driver`` is the one that
    has it now, empty for none. ``group`` is its IOMMU group, None without an IOMMU; ``node`` its memory node, -1 where the
    host does not say. ``window`` is what its large (64-bit, prefetchable) memory regions take together. ``uses`` says, in
    words, what this host uses it for right now. ``resets``: the kernel can reset it alone. ``virtual``: it is a virtual
    function (SR-IOV), a device of its own whatever its address; ``parent`` is then the one it is of,
    and ``index`` its number there.

    ``root`` is the root complex it hangs below (``0000:64``) and ``bridges`` are the ports and switches on the way, the
    root's first. ``cpus`` are beside it, ``nets`` its interfaces. ``reset_methods`` are those the kernel would try, in that
    order. ``vfs`` are how many virtual functions it has now and can have. ``mediated`` are the kinds of devices its driver
    makes of parts of it (mdev). ``bars`` are its memory regions by number, ``sizes`` those a region can be given besides.
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
    parent: PciAddress | None = None
    index: int = -1
    root: str = ""
    bridges: tuple[str, ...] = ()
    cpus: CpuSet = field(default_factory=CpuSet)
    nets: tuple[str, ...] = ()
    reset_methods: tuple[str, ...] = ()
    vfs: tuple[int, int] = (0, 0)
    mediated: tuple[Mediated, ...] = ()
    bars: Mapping[int, Size] = field(default_factory=dict)
    sizes: Mapping[int, tuple[Size, ...]] = field(default_factory=dict)

    @property
    def ids(self) -> str:
        """``VENDOR:DEVICE``, what all cards of one kind share."""
        return f"{self.vendor}:{self.device}"

    @property
    def is_bridge(self) -> bool:
        """Whether it is a part of the host's board, which no guest can have; a switch between GPUs (NVSwitch) is none."""
        return self.code.startswith(_BRIDGES) and not self.is_nvswitch

    @property
    def is_nvswitch(self) -> bool:
        """Whether it joins NVIDIA's GPUs (NVLink): a guest with all of them drives it too."""
        return self.code == _OTHER_BRIDGE and self.vendor == NVIDIA

    @property
    def is_igd(self) -> bool:
        """Whether it is the graphics of an Intel processor (source: QEMU docs/igd-assign.txt)."""
        return self.vendor == "8086" and self.kind == "graphics" and str(self.address) == "0000:00:02.0"

    @property
    def behind(self) -> tuple[str, ...]:
        """The root complex and the switches it hangs below, without its own port: what is behind the same are its peers."""
        return (self.root, *self.bridges[:-1])

    @property
    def at_rest(self) -> bool:
        """Whether no driver of the host works with it: else it keeps its whole IOMMU group from guests."""
        return self.driver in _HARMLESS

    @property
    def opened(self) -> str:
        """The folder that tells which file in /dev/vfio/devices is the device's, while it is on vfio-pci."""
        return f"/sys/bus/pci/devices/{self.address}/vfio-dev"

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.address), self.kind, self.ids)))


@dataclass(frozen=True)
class PciFacts:
    """All functions in order of their addresses, and what was leased.

    ``leased`` maps addresses to the machine that has them, without this machine's own. ``open_groups`` are the IOMMU groups
    whose device file this user may open without anyone's help. ``locked`` is how many bytes a process of this user may
    lock in memory, None for no limit. ``missing`` says why no device can be given away at all, empty where some can.
    ``one_by_one``: the kernel hands out devices by themselves, not groups alone (IOMMUFD, VFIO_DEVICE_CDEV).
    ``pretended`` is what the kernel was told to take for isolation that no hardware promises (``pcie_acs_override``),
    ``width`` how many bits a physical address has, 0 where it does not say. ``parts`` are devices that drivers have made of
    parts of their cards (mdev).
    """

    devices: tuple[PciDevice, ...] = ()
    leased: Mapping[str, str] = field(default_factory=dict)
    open_groups: frozenset[int] = frozenset()
    locked: int | None = None
    missing: str = ""
    one_by_one: bool = False
    pretended: str = ""
    width: int = 0
    parts: tuple[MediatedDevice, ...] = ()

    def at(self, address: PciAddress) -> PciDevice | None:
        """The function of that address."""
        return next((one for one in self.devices if one.address == address), None)

    def virtual_of(self, device: PciDevice) -> tuple[PciDevice, ...]:
        """The virtual functions of a device."""
        return tuple(one for one in self.devices if one.parent == device.address)

    def parts_of(self, device: PciDevice) -> tuple[MediatedDevice, ...]:
        """The devices that its driver has made of parts of it."""
        return tuple(one for one in self.parts if one.card == device.address)

    def called(self, name: str) -> PciDevice | None:
        """The function of that address, or with that network interface."""
        try:
            return self.at(PciAddress.parse(name))
        except ValueError:
            return next((one for one in self.devices if name in one.nets), None)

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

    def reset_with(self, device: PciDevice) -> tuple[PciDevice, ...]:
        """The others that are reset with it where its bus is: everything behind the same port."""
        if not device.bridges:
            return ()
        return tuple(one for one in self.devices if one != device and device.bridges == one.bridges[: len(device.bridges)])

    def holder(self, device: PciDevice) -> str:
        """The machine that has the device, or one of its group: they can only be leased together."""
        return next((self.leased[str(one.address)] for one in self.group_of(device) if str(one.address) in self.leased), "")
