"""All facts one plan rests on."""

from __future__ import annotations

from dataclasses import dataclass

from tinamou.facts.accel import AccelFacts
from tinamou.facts.firmware import Firmware
from tinamou.facts.host import HostFacts
from tinamou.facts.image import ImageFacts
from tinamou.facts.place import Place
from tinamou.facts.qemu import QemuFacts


@dataclass(frozen=True, slots=True)
class Facts:
    """Host, binary, accelerators, firmware, image and place: with the same facts the same spec gives the same plan."""

    host: HostFacts
    qemu: QemuFacts
    accel: AccelFacts
    firmware: tuple[Firmware, ...]
    image: ImageFacts
    place: Place
