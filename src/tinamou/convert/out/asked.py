"""What a machine asks for beyond what every machine has, by field: a writer takes what its tool has, the rest is told."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Literal

from tinamou import late
from tinamou.convert.account import HIDDEN, hidden
from tinamou.convert.result import Note, Rank
from tinamou.late import dataclass, field
from tinamou.parts.boot import BootSpec
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.hyperv import BASE
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.passthrough import PassthroughSpec
from tinamou.parts.pmem import PmemSpec
from tinamou.parts.share import ShareSpec
from tinamou.parts.usb import UsbSpec
from tinamou.parts.windows import release, without_virtio
from tinamou.spec import MachineSpec

__all__ = ["Asked", "Place"]

_ITEMS = {
    **{"disk": DiskSpec, "pmem": PmemSpec, "net": NetSpec, "share": ShareSpec, "pci": PassthroughSpec, "usb": UsbSpec},
}
_HOST = {
    "confine": "walls around QEMU are the other tool's own",
    "security": "walls around QEMU are the other tool's own",
    "limits": "what a machine may use at most is the other tool's to set",
    "seed": "the first-boot configuration is not part of the machine there: cloud-localds makes a disc of it",
}
"""Table → why its fields are left out, where a writer does not know them."""
_SECRET = ("seed.user_data", "seed.ignition", "seed.combustion", "smbios.oem", "windows.product_key", "windows.firstboot")
"""Fields whose texts may hold secrets: no note shows them."""


@dataclass(frozen=True)
class Place:
    """What a writer is told of the host: where the image lies, in which format, for which architecture; whether KVM runs.

    An image that has no disk starts by ``kernel``, ``initrd`` and ``cmdline``. ``own``: the image is a disk of this
    machine's alone, which may be written.
    """

    image: str = ""
    format: str = "qcow2"
    arch: str = "x86_64"
    kvm: bool = False
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    own: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Virtual sizes of the disks that are here, in bytes, by their paths."""

    def started(self, boot: BootSpec) -> dict[str, str]:
        """``kernel``, ``initrd``, ``cmdline`` that a firmware does not load: the description's own, or the image's."""
        own = {"kernel": boot.kernel, "initrd": boot.initrd, "cmdline": boot.cmdline}
        if boot.kernel or self.image:
            return own
        return {"kernel": self.kernel, "initrd": self.initrd, "cmdline": f"{self.cmdline} {boot.cmdline}".strip()}


def _overlay(place: Place, path: str) -> list[str]:
    """The words that make an overlay of the image."""
    return ["qemu-img", "create", "-f", "qcow2", "-b", place.image, "-F", place.format, path]


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

    @staticmethod
    def told(rank: Rank, where: str, value: object, reason: str, fix: str = "") -> Note:
        """A note on a field that is written."""
        return Note(rank, where, str(value), reason, fix)

    @property
    def shared(self) -> bool:
        """Whether other processes use the guest's memory: those of shared folders, and of cards on vhost-user."""
        return bool(self.spec.share or any(net.type == "vhost-user" for net in self.spec.net))

    def windows(self, *unwritten: str) -> None:
        """Tell what tinamou gives a Windows and no writer does: enlightenments, where none are named, and ``unwritten``."""
        self.take("os", "windows.virtio")
        if release(self.spec) is None:
            return
        if self.spec.cpu.hyperv == "auto":
            reason = "which enlightenments this host's KVM has is found when a machine starts"
            self.note("lost", "cpu.hyperv", "auto", reason, f'cpu.hyperv = "{",".join(BASE)}"')
        for reason in unwritten:
            self.notes.append(Note("lost", "os", self.spec.os, reason))

    def first(self, place: Place, folder: str = "", *, copied: bool = False) -> DiskSpec | None:
        """The disk the machine starts from: an image that others share lies beneath an overlay in ``folder``, as here.

        ``copied``: the tool has disks in a place of its own, where a copy goes.
        """
        if not place.image:
            return None
        if place.format == "iso":
            return DiskSpec(path=place.image, format="raw", interface="cdrom")
        kind: Literal["sata", "virtio"] = "sata" if without_virtio(self.spec) else "virtio"
        if place.own and not copied:
            reason = "the machine's own disk: one tool at a time may start it"
            self.notes.append(Note("check", "image", place.image, reason))
            return DiskSpec(path=place.image, format=place.format, interface=kind)  # type: ignore[arg-type]
        path = f"{folder}{self.spec.name or 'machine'}.qcow2"
        if copied:
            words = ["qemu-img", "convert", "-O", "qcow2", place.image, path]
            reason = f"the machine starts from a copy of {place.image}, to be made before"
            self.notes.append(Note("check", "image", path, reason, shlex.join(words)))
            return DiskSpec(path=path, format="qcow2", interface=kind)
        reason = f"{place.image} may be others' too and is not written: an overlay is, to be made before"
        self.notes.append(Note("check", "image", path, reason, shlex.join(_overlay(place, path))))
        return DiskSpec(path=path, format="qcow2", interface=kind)

    def done(self) -> list[Note]:
        """All notes, and one for each field that no writer took."""
        for path, value in list(self.left.items()):
            reason = _HOST.get(path.partition(".")[0], f"{self.tool} has no such setting, or none that is known here")
            shown = HIDDEN if path in _SECRET else hidden(path, str(value))
            self.note("lost", path, shown, reason)
        return self.notes
