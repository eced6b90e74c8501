"""The options that describe a machine: the parser's library and the quick reader take them from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.spec import MachineSpec

__all__ = ["MachineOptions", "spec_from"]


@dataclass(frozen=True)
class MachineOptions:
    """What can be said about a machine on the command line; --set reaches everything else."""

    name: str | None = None
    "Name of the machine, and hostname of its guest."
    arch: str | None = None
    "Guest architecture: x86_64, aarch64, riscv64."
    cpus: int | None = None
    "Number of virtual CPUs."
    memory: str | None = None
    "Guest memory, for example 2G."
    pin: str | None = None
    "Host CPUs for the virtual ones: off, auto, or a list such as 8-11."
    hugepages: str | None = None
    "Pages the memory lies on: off, auto, 2M, 1G."
    accel: str | None = None
    "auto, kvm, hvf, whpx, tcg."
    firmware: str | None = None
    "auto, bios, uefi, direct."
    kernel: str | None = None
    "Kernel for direct boot."
    initrd: str | None = None
    "Initial RAM disk for direct boot."
    cmdline: str | None = None
    "Kernel arguments, added to the necessary ones."
    disk: tuple[str, ...] = ()
    "A disk: a file, or size=10G,format=qcow2,…; may be repeated."
    net: tuple[str, ...] = ()
    "A network interface: user, none, or type=user,model=e1000,forward=8080:80; may be repeated."
    share: tuple[str, ...] = ()
    "A folder of the host in the guest: /data, /data:/mnt/data, /data:/mnt/data:ro; may be repeated."
    publish: tuple[str, ...] = ()
    "A port of the host that leads into the guest: 8080:80, 127.0.0.1:8080:80, 5353:53/udp; may be repeated."
    pci: tuple[str, ...] = ()
    "A device of the host for the guest alone: 65:00.0, or 10de:1db4 for any of that kind; may be repeated."
    display: str | None = None
    "none, vnc, spice."
    confidential: str | None = None
    "Memory the host cannot read: off, auto, sev, sev-es, sev-snp, tdx."
    secure_boot: bool = False
    "Start only what is signed (Secure Boot, by UEFI)."
    secure_boot_keys: str | None = None
    "Folder with certificates of your own to trust, in place of Microsoft's: PK.pem, KEK.pem, db.pem."
    tpm: bool = False
    "Give it a TPM 2.0 of its own."
    user_data: str | None = None
    "File with cloud-init user-data, merged with tinamou's own."
    set: tuple[str, ...] = ()
    "Any field of the spec: --set cpu.model=host; values are TOML, plain text where they are not."


def spec_from(image: str, options: MachineOptions | None, *, apart: bool = False) -> MachineSpec:
    """A spec from an image's name, or from a TOML file, with the options laid over it. Raises SpecError.

    ``apart`` leaves it without a network where none is asked for.
    """
    from tinamou.cli.described import described

    return described(image, vars(options) if options else {}, apart=apart)
