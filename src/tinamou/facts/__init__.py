"""What is known about a host, a QEMU binary, firmware and images: frozen data, filled by probe/ and read by the planner."""

from __future__ import annotations

from tinamou.facts.accel import AccelFacts, Trial
from tinamou.facts.chain import ChainFile
from tinamou.facts.encryption import EncryptionFacts
from tinamou.facts.facts import Facts
from tinamou.facts.firmware import Firmware
from tinamou.facts.host import Cache, Cpu, HostFacts, NumaNode
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
