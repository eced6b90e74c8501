"""The tiny guest: the distribution's kernel, busybox and qemu-guest-agent in one initrd; the default guest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.digest import sha256
from tinamou.facts.image import ImageFacts
from tinamou.images.progress import Progress
from tinamou.images.store import Prepared
from tinamou.late import dataclass, field, replace

if TYPE_CHECKING:
    from tinamou.images.packages import Apt, Package

__all__ = ["ARCHES", "FIRST", "MODULES", "Tiny"]

_KERNELS = {
    ("debian", "amd64"): "linux-image-cloud-amd64",
    ("debian", "arm64"): "linux-image-cloud-arm64",
    ("debian", "riscv64"): "linux-image-riscv64",
    ("ubuntu", "amd64"): "linux-image-virtual",
    ("ubuntu", "arm64"): "linux-image-virtual",
    ("ubuntu", "riscv64"): "linux-image-generic",
}
_KERNEL_PARTS = ("linux-image-", "linux-modules-", "linux-binary-")
ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
"""Architectures the guest is built for, with Debian's name of each."""

_IDLE = ("crypto_kdf108_init", "tracer_init_tracefs", "init_kprobe_trace")
_CMDLINE = f"quiet cryptomgr.notests initcall_blacklist={','.join(_IDLE)} rcupdate.rcu_expedited=1"
"""Fewer messages, no self-tests of the crypto library, no tracing, short waits for RCU; docs/reference/boot-speed.md."""

_FAST_KERNELS = {"x86_64": "vmlinux"}
FIRST: dict[str, tuple[str, ...]] = {
    "first": ("virtio_pci", "virtio_console"),
    "disks": ("virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "nvme", "ahci"),
}
"""What its first process loads before the guest answers, ``disks`` where there are any."""
MODULES = (
    *(
        "virtio_pci",
        "virtio_mmio",
        "virtio_console",
        "virtio_blk",
        "virtio_net",
        "virtio_rng",
        "virtio_balloon",
        "virtio_scsi",
    ),
    *(
        "virtio_mem",
        "virtio_pmem",
        "nd_pmem",
        "virtio_input",
        "virtiofs",
        "9p",
        "9pnet_virtio",
        "vmw_vsock_virtio_transport",
        "vmgenid",
    ),
    *(
        "pvpanic",
        "pvpanic_pci",
        "pvpanic_mmio",
        "evdev",
        "button",
        "gpio_keys",
        "gpio_pl061",
        "nvme",
        "ahci",
        "sd_mod",
        "sr_mod",
    ),
    *("e1000", "e1000e", "ext4", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859_1", "isofs", "overlay", "squashfs", "loop"),
    *("sev_guest", "tdx_guest", "tsm", "efi_secret", "dm_crypt", "xts"),
    *("af_packet", "rtc_cmos", "rtc_pl031", "syscon_poweroff", "pci_host_generic", "qemu_fw_cfg", "ipv6"),
)
"""What it can load."""


@dataclass(frozen=True)
class Tiny:
    """The recipe for one architecture (see ``images.store.Recipe``)."""

    arch: str
    name: str = "tiny"
    builder: int = 27
    space: int = 1 << 30
    packages: tuple[str, ...] = ()
    """What is in it beside kernel, busybox and agent, with its libraries."""
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Programs of those: the place in the guest, places in the packages."""
    modules: tuple[str, ...] = MODULES

    @property
    def facts(self) -> ImageFacts:
        """What the guest is, with file names relative to its folder."""
        return ImageFacts(
            name=self.name,
            arch=self.arch,
            boots=("direct",),
            kernel="vmlinuz",
            fast_kernel=_FAST_KERNELS.get(self.arch, ""),
            initrd="initrd",
            cmdline=_CMDLINE,
            agent=True,
            resident=True,
            user="root",
        )

    def prepare(self, work: Path, progress: Progress) -> Prepared:
        """Ask the archive which packages it offers now."""
        from tinamou.images import packages, sources

        packages.require_tools(["apt-get", "apt-cache", "apt-config", "dpkg-deb"], f"building the guest {self.name}")
        host, architecture = sources.host_distribution(), ARCHES[self.arch]
        releases = sources.for_architecture(host, architecture)
        release, apt, left_out = packages.first_usable(releases, architecture, work, progress)
        wanted = _select(apt, _KERNELS[release.name, architecture], self.packages)
        versions = {package.name: package.version for package in wanted}
        manifest: dict[str, object] = {"guest": self.name, "arch": self.arch, "builder": self.builder}
        manifest.update(release=release.suite, packages=versions, left_out=left_out)
        key = sha256(json.dumps([versions, release.suite]).encode()).hexdigest()[:16]
        return Prepared(key, lambda out: self._build(apt.download(wanted, progress), manifest, work / "root", out, progress))

    def _build(self, debs: list[Path], manifest: dict[str, object], root: Path, out: Path, progress: Progress) -> ImageFacts:
        from tinamou.images import packages, tiny_tree

        progress("unpacking packages", None)
        for deb in debs:
            packages.unpack(deb, root)
        progress("writing kernel and initrd", None)
        fast = tiny_tree.extract_kernel(root, out)
        (out / "initrd").write_bytes(tiny_tree.initrd(root, self.arch, self.modules, FIRST, self.programs))
        (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        return self.facts if fast else replace(self.facts, fast_kernel="")


def _select(apt: Apt, kernel: str, more: Sequence[str]) -> list[Package]:
    """The kernel with its modules, busybox, and the agent and ``more`` with libraries; nothing of the system around."""
    images, todo = set[str](), [kernel]
    while todo:
        images.add(name := todo.pop())
        todo += [n for n in apt.depends(name) if n.startswith(_KERNEL_PARTS) and n not in images]
    offered = apt.closure(["qemu-guest-agent", "busybox-static", *more, *sorted(images)])
    named = {"qemu-guest-agent", "busybox-static", *more, *images}
    return sorted((p for p in offered if p.name in named or _is_library(p.name)), key=lambda p: p.name)


def _is_library(name: str) -> bool:
    return (
        name.startswith(("lib", "zlib")) and "perl" not in name and not name.startswith(("libpam", "libkmod", "libsystemd"))
    )
