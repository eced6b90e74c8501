"""What a machine asks for beyond what every machine has, by field: a writer takes what its tool has, the rest is told."""

from __future__ import annotations

from typing import Any

from tinamou import late
from tinamou.convert.account import hidden
from tinamou.convert.result import Note, Rank
from tinamou.late import dataclass, field
from tinamou.parts.boot import BootSpec
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.passthrough import PassthroughSpec
from tinamou.parts.share import ShareSpec
from tinamou.parts.usb import UsbSpec
from tinamou.spec import MachineSpec

__all__ = ["Asked", "Place"]

_ITEMS = {"disk": DiskSpec, "net": NetSpec, "share": ShareSpec, "pci": PassthroughSpec, "usb": UsbSpec}
_HOST = {
    "confine": "walls around QEMU are the other tool's own",
    "security": "walls around QEMU are the other tool's own",
    "limits": "what a machine may use at most is the other tool's to set",
    "seed": "the first-boot configuration is not part of the machine there: cloud-localds makes a disc of it",
}
"""Table → why its fields are left out, where a writer does not know them."""


@dataclass(frozen=True)
class Place:
    """What a writer is told of the host: where the image lies, in which format, for which architecture; whether KVM runs.

    An image that has no disk starts by ``kernel``, ``initrd`` and ``cmdline``.
    """

    image: str = ""
    format: str = "qcow2"
    arch: str = "x86_64"
    kvm: bool = False
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""

    def started(self, boot: BootSpec) -> dict[str, str]:
        """``kernel``, ``initrd``, ``cmdline`` that a firmware does not load: the description's own, or the image's."""
        own = {"kernel": boot.kernel, "initrd": boot.initrd, "cmdline": boot.cmdline}
        if boot.kernel or self.image:
            return own
        return {"kernel": self.kernel, "initrd": self.initrd, "cmdline": f"{self.cmdline} {boot.cmdline}".strip()}


@dataclass
class Asked:
    """The fields of a machine that are not as in every machine, by their path: ``net[0].mac``."""

    spec: MachineSpec
    tool: str
    left: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def __post_init__(self) -> None:
        plain = late.asdict(self.spec)
        usual = late.asdict(MachineSpec())
        for name, value in plain.items():
            if name in _ITEMS:
                of_kind = late.asdict(_ITEMS[name]())
                for number, one in enumerate(value):
                    self.left[f"{name}[{number}]"] = one
                    self._unusual(f"{name}[{number}]", one, of_kind)
            elif isinstance(value, dict):
                self._unusual(name, value, usual[name])
            elif value != usual[name]:
                self.left[name] = value

    def _unusual(self, path: str, value: dict[str, Any], usual: dict[str, Any]) -> None:
        self.left |= {f"{path}.{key}": one for key, one in value.items() if one != usual.get(key)}

    def take(self, *paths: str) -> None:
        """Count fields as written, and with one of them the disk or card it is of."""
        for path in paths:
            self.left.pop(path, None)
            self.left.pop(path.partition(".")[0], None)

    def note(self, rank: Rank, where: str, value: object, reason: str, fix: str = "") -> None:
        """Tell a difference; the field counts as written."""
        self.take(where)
        self.notes.append(Note(rank, where, str(value), reason, fix))

    def done(self) -> list[Note]:
        """All notes, and one for each field that no writer took."""
        for path, value in list(self.left.items()):
            reason = _HOST.get(path.partition(".")[0], f"{self.tool} has no such setting, or none that is known here")
            self.note("lost", path, hidden(path, str(value)), reason)
        return self.notes
