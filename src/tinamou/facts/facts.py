"""All facts one plan rests on."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.facts.accel import AccelFacts
from tinamou.facts.chain import ChainFile
from tinamou.facts.encryption import EncryptionFacts
from tinamou.facts.firmware import Firmware
from tinamou.facts.host import HostFacts
from tinamou.facts.hyperv import HyperVFacts
from tinamou.facts.image import ImageFacts
from tinamou.facts.keys import KeyFacts
from tinamou.facts.net import NetFacts
from tinamou.facts.pci import PciFacts
from tinamou.facts.permits import Permits
from tinamou.facts.place import Place
from tinamou.facts.qemu import QemuFacts
from tinamou.facts.usb import UsbFacts
from tinamou.facts.walls import WallFacts
from tinamou.late import dataclass, field


@dataclass(frozen=True)
class Facts:
    """Host, binary, accelerators, firmware, image and place: with the same facts the same spec gives the same plan.

    ``chains`` holds, top first, the files of every disk that exists already (``disk0``), and of the image (``image``).
    ``pci`` is looked at only for machines that want devices of the host, ``hyperv`` for those that show such
    interfaces; ``now``, seconds since 1970, for those whose clock is set apart from the host's, and ``local``, the seconds
    that this host's local time is ahead of UTC then.
    """

    host: HostFacts
    qemu: QemuFacts
    accel: AccelFacts
    firmware: tuple[Firmware, ...]
    image: ImageFacts
    place: Place
    chains: Mapping[str, tuple[ChainFile, ...]] = field(default_factory=dict)
    net: NetFacts = field(default_factory=NetFacts)
    permits: Permits = field(default_factory=Permits)
    pci: PciFacts = field(default_factory=PciFacts)
    usb: UsbFacts = field(default_factory=UsbFacts)
    encryption: EncryptionFacts = field(default_factory=EncryptionFacts)
    walls: WallFacts = field(default_factory=WallFacts)
    keys: KeyFacts = field(default_factory=KeyFacts)
    hyperv: HyperVFacts = field(default_factory=HyperVFacts)
    now: int = 0
    local: int = 0
