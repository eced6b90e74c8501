"""From a system in a tarball to a bootable disk: partitions, file systems, boot loaders, kernel files beside it."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import ImageError
from tinamou.images import gpt
from tinamou.images.debian_tools import as_root
from tinamou.images.kernel import write_kernel
from tinamou.system.exec import CommandError, run_whole

if TYPE_CHECKING:
    from tinamou.images.debian import Port
    from tinamou.images.gpt import Identities
    from tinamou.units import Size

__all__ = ["assemble", "compress", "extract_kernel"]

_MIB = 1 << 20
_BIOS_MIB, _ESP_MIB = 1, 63


def extract_kernel(root: Path, out: Path) -> bool:
    """Write ``vmlinuz`` and ``initrd``, and ``vmlinux`` where the kernel has a PVH entry point; tell whether it has."""
    with tarfile.open(root) as archive:
        names = archive.getnames()
        kernel = _member(archive, _one(names, "boot/vmlinuz-"))
        (out / "initrd").write_bytes(_member(archive, _one(names, "boot/initrd.img-")))
    return write_kernel(kernel, out)


def assemble(root: Path, port: Port, ids: Identities, *, arch: str, size: Size, work: Path) -> Path:
    """A raw disk with a GPT: BIOS boot partition, EFI system partition, root last so that it can grow."""
    disk, sectors = work / "disk.raw", size // gpt.SECTOR
    per = _MIB // gpt.SECTOR
    start = (1 + _BIOS_MIB + _ESP_MIB) * per
    partitions = [
        gpt.Partition(gpt.BIOS_BOOT, per, _BIOS_MIB * per, "bios", ids.of_partition("bios")),
        gpt.Partition(gpt.EFI_SYSTEM, (1 + _BIOS_MIB) * per, _ESP_MIB * per, "esp", ids.of_partition("esp")),
        gpt.Partition(gpt.ROOTS[arch], start, sectors - start - per, "root", ids.of_partition("root")),
    ]
    esp = _make_esp(root, port, ids, work)
    with disk.open("wb") as file:
        file.truncate(size)
        gpt.write_table(file, sectors, ids.disk, partitions)
        if port.bios:
            boot, core = _bios_stages(root)
            gpt.write_bios_boot(file, boot, core, partitions[0])
        file.seek(partitions[1].first * gpt.SECTOR)
        file.write(esp.read_bytes())
    _make_root(root, disk, partitions[2], ids, work)
    return disk


def compress(raw: Path, target: Path) -> None:
    """The disk as compressed qcow2."""
    options = "compression_type=zstd,lazy_refcounts=off"
    _run(["qemu-img", "convert", "-c", "-W", "-m", "4", "-f", "raw", "-O", "qcow2", "-o", options, str(raw), str(target)])


def _make_root(root: Path, disk: Path, partition: gpt.Partition, ids: Identities, work: Path) -> None:
    tree = work / "tree"
    offset = partition.first * gpt.SECTOR
    make = f"mkfs.ext4 -q -F -L root -U {ids.root} -m 1 -O ^metadata_csum_seed -E offset={offset},hash_seed={ids.root}"
    script = (
        'set -e; mkdir "$1"; tar -C "$1" --numeric-owner --xattrs --xattrs-include="*" -xf "$2"; '
        f'{make} -d "$1" "$3" {partition.sectors // 2}k; rm -rf "$1"'
    )
    _run(as_root(["sh", "-c", script, "sh", str(tree), str(root), str(disk)]))


def _make_esp(root: Path, port: Port, ids: Identities, work: Path) -> Path:
    """The EFI system partition: shim, GRUB, and the line that sends GRUB to the root file system."""
    image, tree = work / "esp.img", work / "esp"
    shim, grub, manager = (f"{name}{port.efi}.efi" for name in ("shim", "grub", "mm"))
    config = (
        f"search --no-floppy --fs-uuid --set=root {ids.root}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )
    with tarfile.open(root) as archive:
        for folder in (tree / "EFI/BOOT", tree / "EFI/debian"):
            folder.mkdir(parents=True)
            first = f"BOOT{port.efi.upper()}.EFI" if folder.name == "BOOT" else shim
            (folder / first).write_bytes(_member(archive, f"./usr/lib/shim/{shim}.signed"))
            (folder / grub).write_bytes(_member(archive, f"./usr/lib/grub/{port.grub}/{grub}.signed"))
            (folder / manager).write_bytes(_member(archive, f"./usr/lib/shim/{manager}.signed"))
    (tree / "EFI/debian/grub.cfg").write_text(config)
    volume = ids.esp.replace("-", "")
    _run(["mkfs.vfat", "--invariant", "-i", volume, "-n", "ESP", "-C", str(image), str(_ESP_MIB * 1024)])
    _run(["mcopy", "-s", "-i", str(image), str(tree / "EFI"), "::"])
    return image


def _bios_stages(root: Path) -> tuple[bytes, bytes]:
    with tarfile.open(root) as archive:
        return _member(archive, "./boot/grub/i386-pc/boot.img"), _member(archive, "./boot/grub/i386-pc/core.img")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise ImageError(f"the installed system has no {name.lstrip('./')}")
    return file.read()


def _one(names: list[str], start: str) -> str:
    found = sorted(name for name in names if name.removeprefix("./").startswith(start))
    if not found:
        raise ImageError(f"the installed system has no {start}*")
    return found[-1]


def _run(argv: list[str]) -> None:
    try:
        run_whole(argv)
    except CommandError as error:
        raise ImageError("the disk cannot be made", why=error.stderr.strip(), evidence={"command": error.replay}) from error
