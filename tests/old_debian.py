"""Disks of a Debian that knows an old bus alone: its fstab and loader name /dev/sda, its initrd has no driver of virtio.

Three partitions: GRUB's, /boot on ext4, and the system, on ext4 or on Btrfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tinamou.images import gpt, packages, sources
from tinamou.images.progress import silent

MIB = 1 << 20
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "grub-common", "zstd"),
    *("qemu-guest-agent", "btrfs-progs", "lvm2", "e2fsprogs"),
)
BOOT, ROOT = "6f1d7c52-0000-4000-8000-000000000001", "6f1d7c52-0000-4000-8000-000000000002"
CUSTOMIZE = f"""set -eu
cd "$1"
sed -i s/MODULES=most/MODULES=list/ etc/initramfs-tools/initramfs.conf
printf '%s\\n' ahci sd_mod ext4 btrfs dm_mod >>etc/initramfs-tools/modules
echo 'RESUME=none' >etc/initramfs-tools/conf.d/resume
chroot . update-initramfs -u -k all
mkdir -p boot/grub/i386-pc
cp usr/lib/grub/i386-pc/*.mod usr/lib/grub/i386-pc/*.lst usr/lib/grub/i386-pc/boot.img boot/grub/i386-pc/
printf 'search.fs_uuid {BOOT} root\\nset prefix=($root)/grub\\n' >tmp/early.cfg
chroot . grub-mkimage -O i386-pc -c /tmp/early.cfg -p /grub -o /boot/grub/i386-pc/core.img \\
    biosdisk part_gpt ext2 search_fs_uuid normal configfile linux serial terminal
rm tmp/early.cfg
echo olddebian >etc/hostname
"""
FSTAB = "# <file system> <mount point>\n{root}\t/ {kind} {options} 0 1\n/dev/sda2 /boot ext4 defaults 0 2\n{more}"
LOADER = """set timeout=0
serial --unit=0 --speed=115200
terminal_output console serial
linux /vmlinuz root={root} ro {flags} console=ttyS0,115200
initrd /initrd.img
boot
"""
PLACES = {"boot": (2, 200), "system": (202, 1400)}
"""Where the partitions are, and how large, in MiB."""


def system(work: Path) -> Path:
    """The installed system as a folder; the test is skipped where it cannot be made."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap") or not shutil.which("apt-get"):
        pytest.skip("root, mmdebstrap and apt, to install a Debian")
    for name in ("apt", "tmp"):
        (work / name).mkdir()
    wanted = sources.Distribution("debian", "bookworm")
    _, apt, left_out = packages.first_usable([wanted], "amd64", work / "apt", silent)
    lines = [line for one in apt.sources if (line := one.line()) not in left_out]
    options, hook, root = work / "options", work / "hook", work / "root"
    options.write_text("".join(f"{line}\n" for line in packages.host_acquire()))
    hook.write_text(CUSTOMIZE)
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", f"--aptopt={options}"]
    argv += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"', f'--customize-hook=sh {hook} "$1"']
    done = subprocess.run(
        [*argv, "bookworm", root, *lines], env=os.environ | {"TMPDIR": str(work / "tmp")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def disk(root: Path, target: Path, kind: str, *, called: str = "/dev/sda3", more: str = "") -> None:
    """A raw disk of the system on ``ext4`` or ``btrfs``; ``called`` is the root's name in fstab and loader."""
    flags = "rootflags=subvol=/" if kind == "btrfs" else ""
    (root / "etc/fstab").write_text(
        FSTAB.format(root=called, kind="btrfs" if kind == "btrfs" else "ext4", options="defaults", more=more)
    )
    (root / "boot/grub/grub.cfg").write_text(LOADER.format(root=called, flags=flags))
    for name in ("vmlinuz", "initrd.img"):  # not the links of /, which is another file system
        [file] = [one for one in (root / "boot").glob(f"{name}-*") if not one.is_symlink()]
        link = root / "boot" / name
        link.unlink(missing_ok=True)
        link.symlink_to(file.name)
    sectors = {name: (first * MIB // gpt.SECTOR, size * MIB // gpt.SECTOR) for name, (first, size) in PLACES.items()}
    own = gpt.Partition(gpt.BIOS_BOOT, MIB // gpt.SECTOR, MIB // gpt.SECTOR, "bios", ROOT[:-1] + "9")
    parts = [
        own,
        gpt.Partition(gpt.ROOTS["x86_64"], *sectors["boot"], "boot", ROOT[:-1] + "8"),
        gpt.Partition(gpt.ROOTS["x86_64"], *sectors["system"], "system", ROOT[:-1] + "7"),
    ]
    total = (sum(PLACES["system"]) + 2) * MIB
    with target.open("xb") as file:
        file.truncate(total)
        gpt.write_table(file, total // gpt.SECTOR, ROOT[:-1] + "6", parts)
        grub = root / "boot/grub/i386-pc"
        gpt.write_bios_boot(file, (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes(), own)
    _filled(target, "boot", root / "boot", ["mkfs.ext4", "-q", "-F", "-U", BOOT, "-d"])
    rest = target.with_suffix(".tree")
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", root, rest], check=True)
        shutil.rmtree(rest / "boot")
        (rest / "boot").mkdir()
        options = {"ext4": ["-F", "-U", ROOT, "-d"], "btrfs": ["-U", ROOT, "--rootdir"]}
        _filled(target, "system", rest, [f"mkfs.{kind}", "-q", *options[kind]])
    finally:
        shutil.rmtree(rest)


def _filled(disk: Path, name: str, folder: Path, make: list[str]) -> None:
    first, size = PLACES[name]
    piece = disk.with_suffix(f".{name}")
    try:
        with piece.open("xb") as file:
            file.truncate(size * MIB)
        done = subprocess.run([*make, folder, piece], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        copy = ["dd", f"if={piece}", f"of={disk}", "bs=1M", f"seek={first}", "conv=notrunc,sparse", "status=none"]
        subprocess.run(copy, check=True)
    finally:
        piece.unlink()
