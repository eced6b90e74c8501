"""What is asked for with ``pci``: a device of the host for the guest alone; and which devices meet it."""

from __future__ import annotations

from typing import ClassVar, Literal

from tinamou.errors import Problem
from tinamou.facts.pci import MediatedDevice, PciDevice
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["MEDIATED", "VIRTUAL", "AssignedDevice", "PassthroughSpec"]

_IDS = r"[0-9a-f]{4}:[0-9a-f]{4}"
_ADDRESS = r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
VIRTUAL, MEDIATED = "vf of ", "mdev of "
"""In front of the card whose virtual function, or a part of which as a device of its own, is meant."""


@dataclass(frozen=True)
class PassthroughSpec:
    """One device of the host."""

    shorthand: ClassVar[str] = "device"

    device: str = option(
        "",
        "its address as lspci shows it (65:00.0), VENDOR:DEVICE for the first free card of that kind (10de:1db4), or "
        "'vf of eth2' for the first free virtual function of a card, named by its interface or address, "
        "'mdev of 65:00.0' for the first free device its driver has made of a part of it (vGPU)",
        pattern=rf"(?i:{_ADDRESS}|{_IDS}|(?:{VIRTUAL}|{MEDIATED})\S{{1,32}})",
        hint="tinamou pci ls lists the devices of this host",
    )
    alone: bool = option(False, "this function only, without the others of its card (a graphics card's sound, for example)")
    rom: bool = option(True, "the guest's firmware may run the card's own boot code")
    rom_file: str = option(
        "", "a file with boot code in place of the card's own, for one that was used before the guest starts"
    )
    region: Size = option(
        Size(0), "how large its resizable memory region is while the machine has it (resizable BAR); 0: as it is"
    )
    reset: Literal["", "device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus"] = option(
        "", "the one way the kernel may reset it meanwhile, of those it has for it; empty: the first that works"
    )
    together: bool = option(False, "only with the others that say so behind the same switch, so that they reach each other")
    mac: str = option("", "a virtual function's address, set by its card", pattern=r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
    vlan: int = option(0, "the VLAN its card puts a virtual function in; 0: none", minimum=0, maximum=4094)
    trust: bool = option(False, "a virtual function may change its address and hear everything")
    spoof_check: bool = option(True, "the card drops what a virtual function sends from another address")

    rate: str = option("", "what its card lets a virtual function send, 100Mbit a second", pattern=r"[1-9]\d{0,6}Mbit")

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What its card is to set for a virtual function, in the words of ip(8); none where nothing is asked for."""
        asked = {"mac": self.mac.lower(), "vlan": str(self.vlan or "")}
        asked |= {"trust": "on" * self.trust, "spoofchk": "" if self.spoof_check else "off"}
        asked |= {"max_tx_rate": self.rate.removesuffix("Mbit")}
        return tuple((key, value) for key, value in asked.items() if value)

    def problems(self) -> list[Problem]:
        """A device that is not named."""
        found = []
        if self.rom_file and not self.rom:
            found.append(
                Problem("rom_file", self.rom_file, "rom = false keeps boot code from the guest", "leave one of them out")
            )
        if self.device:
            return found
        return [
            *found,
            Problem("device", None, "no device is named", "write for example pci = ['65:00.0']; see: tinamou pci ls"),
        ]


@dataclass(frozen=True)
class AssignedDevice:
    """The request of that number and the functions that meet it, in the order of their addresses; or the ``part`` of one,
    which stays the host's, that does."""

    number: int
    spec: PassthroughSpec
    functions: tuple[PciDevice, ...]
    part: MediatedDevice | None = None

    def chosen_reset(self, function: PciDevice) -> str:
        """The one way to reset that function that is asked for, where the kernel has it; empty: those it has."""
        return self.spec.reset if self.spec.reset in function.reset_methods else ""

    @property
    def resized(self) -> tuple[PciDevice, int] | None:
        """The function and number of the region that is to have another size: the largest that can have another."""
        found = (
            []
            if self.part
            else [(one.bars.get(region, Size(0)), one, region) for one in self.functions for region in one.sizes]
        )
        if not self.spec.region or not found:
            return None
        _, device, region = max(found, key=lambda each: each[0])
        return device, region
