"""Debian's netboot installer as a disc: its own kernel and initial RAM disk, laid out as its mini.iso, and what is in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from debian_mirror import PACKAGES, Mirror, MissingError, Upstream, parts_of

PACKAGE = "debian-installer-13-netboot-amd64"
_WITHIN = "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64"
_OLDER = 3
"""Versions that are tried: of a mirror that lacks the newest installer's kernel modules an older one may have its own."""


class Netboot(NamedTuple):
    """One version of the installer, unpacked."""

    version: str
    folder: Path
    kernel: str
    present: dict[str, str]
    """Its parts that need not be loaded, and their versions."""


def found(folder: Path) -> tuple[Netboot, Mirror]:
    """The newest installer whose other parts are to be had, and a mirror of them. Raises MissingError saying what is not."""
    upstream, why = Upstream(folder / "upstream"), []
    upstream.forget("dists/")
    if (index := upstream.get(PACKAGES)) is None:
        raise MissingError(f"{PACKAGES} is not on the mirror")
    [newest] = [one for one in parts_of(index.read_bytes()) if one.name == PACKAGE]
    version, number = re.fullmatch(r"(.*\+deb13u)(\d+)", newest.fields["Version"]).groups()
    for older in range(min(_OLDER, int(number))):
        wanted = f"{version}{int(number) - older}"
        archive = upstream.get(newest.path.replace(newest.fields["Version"], wanted))
        if archive is None:
            why.append(f"{PACKAGE} {wanted} is not on the mirror")
            continue
        netboot = _unpacked(wanted, archive, folder / wanted)
        try:
            return netboot, Mirror(folder, netboot.present, netboot.kernel)
        except MissingError as error:
            why.append(f"for {PACKAGE} {wanted}: {error}")
    raise MissingError("; ".join(why))


def _unpacked(version: str, archive: Path, folder: Path) -> Netboot:
    if not (folder / "linux").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE)
        strip = ["--strip-components", str(_WITHIN.count("/") + 2)]
        subprocess.run(["tar", "-x", "-C", folder, *strip, f"./{_WITHIN}"], stdin=files.stdout, check=True)
        assert files.wait() == 0
    names = _of_initrd(folder / "initrd.gz", "-t", "usr/lib/modules/*/modules.order").decode()
    status = _of_initrd(folder / "initrd.gz", "-i", "--to-stdout", "var/lib/dpkg/status").decode()
    return Netboot(version, folder, names.split("/")[3], _versions(status))


def _versions(status: str) -> dict[str, str]:
    """What a file of dpkg's says is there."""
    fields = [dict(re.findall(r"^(\S+): (.*)$", one, re.M)) for one in status.split("\n\n")]
    return {one["Package"]: one["Version"] for one in fields if "Version" in one}


def _of_initrd(initrd: Path, *words: str) -> bytes:
    unpacked = subprocess.run(["gzip", "-dc", initrd], check=True, capture_output=True).stdout
    return subprocess.run(["cpio", "--quiet", *words], input=unpacked, check=True, capture_output=True).stdout


def efi_volume(volume: Path, loader: Path) -> None:
    """What a disc has for UEFI."""
    volume.write_bytes(bytes(4 << 20))
    subprocess.run(["mkfs.vfat", volume], check=True, capture_output=True)
    subprocess.run(["mmd", "-i", volume, "::efi", "::efi/boot"], check=True)
    subprocess.run(["mcopy", "-i", volume, loader, "::efi/boot/bootx64.efi"], check=True)


def disc(netboot: Netboot, work: Path) -> Path:
    """The disc. Its loader for BIOS only hangs, the one for UEFI is GRUB of the package: answers need neither."""
    tree = work / "tree"
    (tree / "boot").mkdir(parents=True)
    for name in ("linux", "initrd.gz"):
        shutil.copy(netboot.folder / name, tree / name)
    (tree / "boot" / "hang.bin").write_bytes(b"\xeb\xfe" + bytes(2046))
    efi_volume(tree / "boot" / "efi.img", netboot.folder / "grubx64.efi")
    words = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-R",
        "-J",
        "-b",
        "boot/hang.bin",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
    ]
    words += ["-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot"]
    subprocess.run([*words, "-o", work / "netboot.iso", tree], check=True, capture_output=True)
    shutil.rmtree(tree)
    return work / "netboot.iso"
