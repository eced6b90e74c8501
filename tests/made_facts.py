"""Facts made by hand for tests of pure code: a QEMU that has everything, a host of four CPUs, two images."""

from __future__ import annotations

import dataclasses

from tinamou.facts import AccelFacts, Facts, Firmware, HostFacts, ImageFacts, MachineType, Place, QemuFacts, Trial
from tinamou.facts.host import Grouping
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.units import CpuSet, PciAddress, Size

BOARDS = {"x86_64": ("pc-q35-7.2", "q35"), "aarch64": ("virt-7.2", "virt"), "riscv64": ("virt", "")}

TINY = ImageFacts(
    name="tiny",
    arch="x86_64",
    boots=("direct",),
    kernel="/images/vmlinuz",
    fast_kernel="/images/vmlinux",
    initrd="/images/initrd",
    cmdline="quiet",
    agent=True,
    user="root",
)
DEBIAN = ImageFacts(
    name="debian",
    arch="x86_64",
    disk="/images/debian.qcow2",
    format="qcow2",
    size=Size.parse("8G"),
    boots=("direct", "bios", "uefi"),
    kernel="/images/vmlinuz",
    initrd="/images/initrd",
    cmdline="root=LABEL=root",
    agent=True,
    seed="nocloud",
    ssh=True,
    user="debian",
)
PCI = PciFacts(
    (
        PciDevice(PciAddress.parse("65:00.0"), "10de", "1db4", "0302", "nvidia", 20, 0, Size.parse("32G"), kind="graphics"),
        PciDevice(PciAddress.parse("65:00.1"), "10de", "10ef", "0403", "snd_hda_intel", 20, 0, kind="audio"),
    )
)
"""A graphics card and its sound, made up of what the kernel shows for such."""

OVMF = Firmware(
    descriptor="/usr/share/qemu/firmware/60-edk2-x86_64.json",
    description="UEFI firmware for x86_64",
    interfaces=frozenset({"uefi"}),
    device="flash",
    executable="/usr/share/OVMF/OVMF_CODE_4M.fd",
    format="raw",
    template="/usr/share/OVMF/OVMF_VARS_4M.fd",
    targets=(("x86_64", ("pc-q35-*",)),),
    features=frozenset({"acpi-s3"}),
)


SWTPM = {"swtpm": "/usr/bin/swtpm", "swtpm_setup": "/usr/bin/swtpm_setup"}


class EveryFeature(QemuFacts):
    """A binary that offers whatever it is asked for."""

    def has(self, feature: str) -> bool:
        return True


def qemu(arch: str = "x86_64") -> QemuFacts:
    name, alias = BOARDS[arch]
    return EveryFeature(
        binary=f"/usr/bin/qemu-system-{arch}",
        version=(7, 2, 0),
        arch=arch,
        machines=(MachineType(name, alias, 288),) if alias else (MachineType(name, "", 288),),
        cpu_models=frozenset({"max"}),
        types=frozenset(),
        commands=frozenset(),
        accels=("kvm", "tcg"),
        options=frozenset(),
    )


def host() -> HostFacts:
    return HostFacts(
        system="Linux",
        arch="x86_64",
        kernel="6.1.0",
        cpus=(),
        caches=(),
        nodes=(),
        allowed_cpus=CpuSet({0, 1, 2, 3}),
        isolated_cpus=CpuSet(),
        memory=Size.parse("16G"),
        memory_available=Size.parse("12G"),
        is_root=True,
        groups={"kvm": 104},
        devices=frozenset({"/dev/net/tun"}),
        tools={"passt": "/usr/bin/passt", "dnsmasq": "/usr/sbin/dnsmasq", "nft": "/usr/sbin/nft", **SWTPM},
        grouping=Grouping("kernel", frozenset(("cpu", "memory", "io", "pids")), ""),
    )


KVM_WORKS = Trial("kvm", True, 12.0, "ran code")
KVM_FAILS = Trial("kvm", False, 2.0, "it cannot emulate POPCNT", "para-virtual", "enable nesting")
TCG = Trial("tcg", True, 40.0, "ran code")


def facts(image: ImageFacts = TINY, *trials: Trial, uid: int | None = 1_900_000_000) -> Facts:
    return Facts(
        host=host(),
        qemu=qemu(image.arch),
        accel=AccelFacts(image.arch, trials or (KVM_FAILS, TCG)),
        firmware=(OVMF,),
        image=image,
        place=Place("web", "/var/lib/tinamou/machines/web", uid, 2222),
    )


def of_arch(image: ImageFacts, arch: str) -> ImageFacts:
    return dataclasses.replace(image, arch=arch)
