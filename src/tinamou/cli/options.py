"""Options that describe a machine, shared by run and plan, and their way into a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from tinamou.cli.described import described
from tinamou.spec import MachineSpec

__all__ = ["MachineOptions", "spec_from"]


@Parameter(name="*")
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
    disk: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A disk: a file, or size=10G,format=qcow2,…; may be repeated."
    net: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A network interface: user, none, or type=user,model=e1000,forward=8080:80; may be repeated."
    share: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A folder of the host in the guest: /data, /data:/mnt/data, /data:/mnt/data:ro; may be repeated."
    pci: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "A device of the host for the guest alone: 65:00.0, or 10de:1db4 for any of that kind; may be repeated."
    display: str | None = None
    "none, vnc, spice."
    confidential: str | None = None
    "Memory the host cannot read: off, auto, sev, sev-es, sev-snp, tdx."
    secure_boot: Annotated[bool, Parameter(negative="")] = False
    "Start only what is signed (Secure Boot, by UEFI)."
    tpm: Annotated[bool, Parameter(negative="")] = False
    "Give it a TPM 2.0 of its own."
    user_data: str | None = None
    "File with cloud-init user-data, merged with tinamou's own."
    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = ()
    "Any field of the spec: --set cpu.model=host; values are TOML, plain text where they are not."


def spec_from(image: str, options: MachineOptions | None, *, apart: bool = False) -> MachineSpec:
    """A spec from an image's name, or from a TOML file, with the options laid over it. Raises SpecError.

    ``apart`` leaves it without a network where none is asked for.
    """
    return described(image, vars(options) if options else {}, apart=apart)
