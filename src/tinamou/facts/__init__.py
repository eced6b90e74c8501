"""What is known about a host, a QEMU binary, firmware and images: frozen data, filled by probe/ and read by the planner."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinamou.facts.accel import AccelFacts, Trial
    from tinamou.facts.chain import ChainFile
    from tinamou.facts.encryption import EncryptionFacts
    from tinamou.facts.facts import Facts
    from tinamou.facts.firmware import Firmware
    from tinamou.facts.host import Cache, Cpu, HostFacts, NumaNode
    from tinamou.facts.hyperv import HyperVFacts
    from tinamou.facts.image import ImageFacts
    from tinamou.facts.net import Link, NetFacts
    from tinamou.facts.pci import PciDevice, PciFacts
    from tinamou.facts.permits import Permits
    from tinamou.facts.place import Place
    from tinamou.facts.qemu import MachineType, QemuFacts
    from tinamou.facts.walls import WallFacts

__all__ = [
    "AccelFacts",
    "Cache",
    "ChainFile",
    "Cpu",
    "EncryptionFacts",
    "Facts",
    "Firmware",
    "HostFacts",
    "HyperVFacts",
    "ImageFacts",
    "Link",
    "MachineType",
    "NetFacts",
    "NumaNode",
    "PciDevice",
    "PciFacts",
    "Permits",
    "Place",
    "QemuFacts",
    "Trial",
    "WallFacts",
]

_HOMES = {
    "tinamou.facts.accel": (
        "AccelFacts",
        "Trial",
    ),
    "tinamou.facts.chain": ("ChainFile",),
    "tinamou.facts.encryption": ("EncryptionFacts",),
    "tinamou.facts.facts": ("Facts",),
    "tinamou.facts.firmware": ("Firmware",),
    "tinamou.facts.host": (
        "Cache",
        "Cpu",
        "HostFacts",
        "NumaNode",
    ),
    "tinamou.facts.hyperv": ("HyperVFacts",),
    "tinamou.facts.image": ("ImageFacts",),
    "tinamou.facts.net": (
        "Link",
        "NetFacts",
    ),
    "tinamou.facts.pci": (
        "PciDevice",
        "PciFacts",
    ),
    "tinamou.facts.permits": ("Permits",),
    "tinamou.facts.place": ("Place",),
    "tinamou.facts.qemu": (
        "MachineType",
        "QemuFacts",
    ),
    "tinamou.facts.walls": ("WallFacts",),
}


def __getattr__(name: str) -> object:
    """Each is loaded when it is used: most commands need the names of files alone, which lie beside them."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'tinamou.facts' has no attribute {name!r}")
