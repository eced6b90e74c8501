"""Which formats a machine can be written in."""

from __future__ import annotations

from collections.abc import Callable

from tinamou.convert.out.asked import Asked, Place
from tinamou.convert.result import RANKS, Note
from tinamou.errors import SpecError
from tinamou.late import dataclass
from tinamou.parts.windows import settled
from tinamou.spec import MachineSpec

__all__ = ["FORMATS", "Written", "write"]

FORMATS = {
    "libvirt": "a libvirt domain, for virsh define",
    "kubevirt": "a KubeVirt VirtualMachine, for kubectl apply",
    "proxmox": "a Proxmox configuration, for /etc/pve/qemu-server",
    "incus": "an Incus instance",
    "ovf": "an OVF description, its disks as VMDK beside it",
    "vagrant": "a Vagrantfile, for vagrant-libvirt",
    "packer": "a template of Packer's QEMU plugin",
    "qemu": "a QEMU command line",
    "script": "a shell script with a QEMU command line",
}
"""Format → what it is."""


@dataclass(frozen=True)
class Written:
    """The text for the other tool, and what it has otherwise, the dearest first."""

    text: str
    notes: list[Note]


def write(spec: MachineSpec, place: Place, to: str) -> Written:
    """The machine for a tool, with what its system needs and it leaves open. Raises SpecError for a format that is none."""
    if to not in FORMATS:
        raise SpecError(f"{to} is no format a machine is written in", fix=f"choose among {', '.join(FORMATS)}")
    asked = Asked(settled(spec), to)
    text = _writer(to)(asked, place)
    notes = sorted(dict.fromkeys(asked.done()), key=lambda note: RANKS.index(note.rank))
    return Written(text, notes)


def _writer(to: str) -> Callable[[Asked, Place], str]:
    match to:
        case "libvirt":
            from tinamou.convert.out.libvirt import write
        case "kubevirt":
            from tinamou.convert.out.kubevirt import write
        case "proxmox":
            from tinamou.convert.out.proxmox import write
        case "incus":
            from tinamou.convert.out.incus import write
        case "ovf":
            from tinamou.convert.out.ovf import write
        case "vagrant":
            from tinamou.convert.out.vagrant import write
        case "packer":
            from tinamou.convert.out.packer import write
        case "script":
            from tinamou.convert.out.qemu import script as write
        case _:
            from tinamou.convert.out.qemu import write
    return write
