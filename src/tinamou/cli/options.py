"""The options that describe a machine: the parser's library and the quick reader take them from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.spec import MachineSpec

__all__ = ["MachineOptions", "spec_from"]


@dataclass(frozen=True)
class MachineOptions:
    """What can be said about a machine on the command line; --set reaches everything else.

    Parameters
    ----------
    name
        Name of the machine, and hostname of its guest.
    os
        The system in the guest: windows-11, windows-10, windows-server-2025, -2022, -2019, linux.
    arch
        Guest architecture: x86_64, aarch64, riscv64.
    cpus
        Number of virtual CPUs.
    memory
        Guest memory, for example 2G.
    pin
        Host CPUs for the virtual ones: off, auto, or a list such as 8-11.
    hugepages
        Pages the memory lies on: off, auto, 2M, 1G.
    accel
        auto, kvm, hvf, whpx, tcg.
    firmware
        auto, bios, uefi, direct.
    kernel
        Kernel for direct boot.
    initrd
        Initial RAM disk for direct boot.
    cmdline
        Kernel arguments, added to the necessary ones.
    disk
        A disk: a file, or size=10G,format=qcow2,…; may be repeated.
    pmem
        A raw file the guest has as persistent memory, /dev/pmem0: FILE, or path=FILE,readonly=true; may be repeated.
    net
        A network interface: user, none, or type=user,model=e1000,forward=8080:80; may be repeated.
    share
        A folder of the host in the guest: /data, /data:/mnt/data, /data:/mnt/data:ro; may be repeated.
    publish
        A port of the host that leads into the guest: 8080:80, 127.0.0.1:8080:80, 5353:53/udp; may be repeated.
    pci
        A device of the host for the guest alone: 65:00.0, or 10de:1db4 for any of that kind; may be repeated.
    usb
        A USB device: tablet, keyboard, hub, or type=stick,path=FILE; may be repeated.
    display
        none, vnc, spice.
    confidential
        Memory the host cannot read: off, auto, sev, sev-es, sev-snp, tdx.
    secure_boot
        Start only what is signed (Secure Boot, by UEFI).
    secure_boot_keys
        Folder with certificates of your own to trust, in place of Microsoft's: PK.pem, KEK.pem, db.pem.
    tpm
        Give it a TPM 2.0 of its own.
    user_data
        File with cloud-init user-data, packed by gzip or not, merged with tinamou's own.
    ignition
        File with an Ignition configuration (JSON), for Fedora CoreOS and Flatcar.
    combustion
        File with a Combustion script, for openSUSE MicroOS.
    no_agent
        Wait for no guest agent, and give the guest no first-boot configuration but what is asked for.
    set
        Any field of the spec: --set cpu.model=host; values are TOML, plain text where they are not.
    """

    name: str | None = None
    os: str | None = None
    arch: str | None = None
    cpus: int | None = None
    memory: str | None = None
    pin: str | None = None
    hugepages: str | None = None
    accel: str | None = None
    firmware: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    disk: tuple[str, ...] = ()
    pmem: tuple[str, ...] = ()
    net: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    usb: tuple[str, ...] = ()
    display: str | None = None
    confidential: str | None = None
    secure_boot: bool = False
    secure_boot_keys: str | None = None
    tpm: bool = False
    user_data: str | None = None
    ignition: str | None = None
    combustion: str | None = None
    no_agent: bool = False
    set: tuple[str, ...] = ()


def spec_from(image: str, options: MachineOptions | None, *, apart: bool = False) -> MachineSpec:
    """A spec from an image's name, or from a TOML file, with the options laid over it. Raises SpecError.

    ``apart`` leaves it without a network where none is asked for.
    """
    from tinamou.cli.described import described

    return described(image, vars(options) if options else {}, apart=apart)
