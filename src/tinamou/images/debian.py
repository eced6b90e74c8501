"""The Debian guest: a whole systemd system with cloud-init, sshd and guest agent that boots by BIOS, UEFI and directly."""

from __future__ import annotations

import json
from pathlib import Path

from tinamou.digest import sha256
from tinamou.facts.image import ImageFacts
from tinamou.images.gpt import Identities
from tinamou.images.progress import Progress
from tinamou.images.store import Prepared
from tinamou.late import dataclass, replace
from tinamou.units import Size

__all__ = ["ARCHES", "SUITES", "Debian"]

SUITES = ("bookworm", "trixie")
"""Releases on offer; the first is what ``debian`` alone means."""

_SIZE = Size.parse("10G")
_PACKAGES = (
    *(
        "systemd",
        "systemd-sysv",
        "systemd-resolved",
        "systemd-timesyncd",
        "libpam-systemd",
        "libnss-resolve",
        "udev",
        "dbus",
    ),
    *("cloud-init", "cloud-guest-utils", "openssh-server", "qemu-guest-agent", "sudo", "ca-certificates", "netbase"),
    *("iproute2", "iputils-ping", "procps", "kmod", "e2fsprogs", "fdisk", "lz4", "initramfs-tools", "grub2-common", "less"),
)


@dataclass(frozen=True)
class Port:
    """What one architecture's system is made of: Debian's name of it, boot packages, EFI suffix, serial console."""

    debian: str
    packages: tuple[str, ...]
    efi: str
    grub: str
    console: str
    bios: bool = False


ARCHES = {
    "x86_64": Port(
        "amd64",
        ("linux-image-cloud-amd64", "grub-pc-bin", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"),
        "x64",
        "x86_64-efi-signed",
        "ttyS0,115200",
        bios=True,
    ),
    "aarch64": Port(
        "arm64",
        ("linux-image-cloud-arm64", "grub-efi-arm64-bin", "grub-efi-arm64-signed", "shim-signed"),
        "aa64",
        "arm64-efi-signed",
        "ttyAMA0,115200",
    ),
}
"""Architectures the guest is built for."""


@dataclass(frozen=True)
class Debian:
    """The recipe for one release and architecture (see ``images.store.Recipe``), with ``packages`` beside its own."""

    suite: str
    arch: str
    packages: tuple[str, ...] = ()
    builder: int = 3
    space: int = 4 << 30

    @property
    def name(self) -> str:
        """``debian:bookworm``, or ``debian:bookworm+nginx`` with packages."""
        return "+".join([f"debian:{self.suite}", *self.packages])

    @property
    def identities(self) -> Identities:
        """The same for every build of this release, so that a plan made before building is the one that is run."""
        return Identities.of(f"debian {self.suite} {self.arch}")

    @property
    def facts(self) -> ImageFacts:
        """What the guest is, with file names relative to its folder."""
        port = ARCHES[self.arch]
        return ImageFacts(
            name=self.name,
            arch=self.arch,
            disk="disk.qcow2",
            format="qcow2",
            size=_SIZE,
            boots=("bios", "uefi", "direct") if port.bios else ("uefi", "direct"),
            kernel="vmlinuz",
            fast_kernel="vmlinux" if port.bios else "",
            initrd="initrd",
            cmdline=f"root=UUID={self.identities.root} ro quiet cryptomgr.notests",
            agent=True,
            seed="nocloud",
            ssh=True,
            user="debian",
        )

    def prepare(self, work: Path, progress: Progress) -> Prepared:
        """Ask the archive which packages it offers now."""
        from tinamou.images import debian_tools, packages, sources

        port = ARCHES[self.arch]
        debian_tools.require(port.debian)
        wanted = sources.Distribution("debian", self.suite)
        _, apt, left_out = packages.first_usable([wanted], port.debian, work, progress)
        offered = apt.closure([*_PACKAGES, *port.packages, *self.packages])
        versions = {package.name: package.version for package in offered}
        key = sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]
        manifest: dict[str, object] = {"guest": self.name, "arch": self.arch, "builder": self.builder}
        manifest.update(packages=versions, left_out=left_out)
        build = _Build(
            self, [line for source in apt.sources if (line := source.line()) not in left_out], manifest, work, progress
        )
        return Prepared(key, build.run)


@dataclass(frozen=True)
class _Build:
    """One build under way."""

    recipe: Debian
    sources: list[str]
    manifest: dict[str, object]
    work: Path
    progress: Progress

    def run(self, out: Path) -> ImageFacts:
        from tinamou.images import debian_disk, debian_tools

        recipe, port = self.recipe, ARCHES[self.recipe.arch]
        ids = recipe.identities
        include = [*_PACKAGES, *port.packages, *recipe.packages]
        self.progress("installing packages with mmdebstrap", None)
        root = debian_tools.bootstrap(recipe.suite, port, ids, include=include, sources=self.sources, work=self.work)
        fast = debian_disk.extract_kernel(root, out)
        self.progress("making the disk", None)
        raw = debian_disk.assemble(root, port, ids, arch=recipe.arch, size=_SIZE, work=self.work)
        self.progress("compressing the disk", None)
        debian_disk.compress(raw, out / "disk.qcow2")
        (out / "manifest.json").write_text(json.dumps(self.manifest, indent=2) + "\n")
        return recipe.facts if fast else replace(recipe.facts, fast_kernel="")
