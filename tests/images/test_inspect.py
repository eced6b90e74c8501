"""What inspect_image says of good images, and what it refuses, each with its name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_making import ESP, gpt, mbr, qemu_img

from tinamou.errors import ImageError
from tinamou.images import inspect as inspect_module
from tinamou.images.inspect import inspect_image
from tinamou.system.qcow2 import write_overlay

EfiDisk = Callable[..., Path]


def test_a_bios_disk(bios_disk: Path) -> None:
    facts = inspect_image(bios_disk)
    assert (facts.format, facts.boots, facts.arch, facts.size) == ("raw", ("bios",), "x86_64", 4 << 20)


@pytest.mark.parametrize(
    ("loader", "arch"), [("BOOTX64.EFI", "x86_64"), ("BOOTAA64.EFI", "aarch64"), ("BOOTRISCV64.EFI", "riscv64")]
)
def test_an_efi_disk_tells_its_architecture(efi_disk: EfiDisk, loader: str, arch: str) -> None:
    facts = inspect_image(efi_disk(loader=loader))
    assert (facts.boots, facts.arch) == (("uefi",), arch)


@pytest.mark.parametrize(("size", "width"), [(40 << 20, 16), (100 << 20, 32)])
def test_wider_fat_volumes(efi_disk: EfiDisk, size: int, width: int) -> None:
    assert inspect_image(efi_disk(size=size, width=width)).boots == ("uefi",)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("qcow2", ""),
        ("qcow2", "-c"),
        ("qcow2", "-c -ocompression_type=zstd"),
        ("qcow2", "-ocluster_size=512"),
        ("qcow2", "-oextended_l2=on"),
        ("vmdk", ""),
        ("vmdk", "-osubformat=streamOptimized"),
        ("vmdk", "-osubformat=monolithicFlat"),
        ("vhdx", ""),
        ("vdi", ""),
        ("vpc", "-oforce_size=on"),
        ("vpc", "-osubformat=fixed,force_size=on"),
    ],
)
def test_every_format_is_read_through(efi_disk: EfiDisk, tmp_path: Path, format: str, options: str) -> None:
    disk = efi_disk(loader="BOOTAA64.EFI")
    target = tmp_path / f"image.{format}"
    qemu_img("convert", "-f", "raw", "-O", format, *options.split(), disk, target)
    facts = inspect_image(target)
    assert (facts.format, facts.size) == (format, 8 << 20)
    if "extended" not in options:
        assert (facts.boots, facts.arch) == (("uefi",), "aarch64")


def test_an_overlay_is_read_through_its_chain(efi_disk: EfiDisk, tmp_path: Path) -> None:
    disk = efi_disk(loader="BOOTRISCV64.EFI")
    write_overlay(tmp_path / "a.qcow2", 16 << 20, disk.name, "raw")
    write_overlay(tmp_path / "b.qcow2", 16 << 20, "a.qcow2", "qcow2")
    facts = inspect_image(tmp_path / "b.qcow2")
    assert (facts.arch, facts.boots, facts.size) == ("riscv64", ("uefi",), 16 << 20)


def test_a_disc(tmp_path: Path) -> None:
    pycdlib = pytest.importorskip("pycdlib")
    from io import BytesIO

    iso = pycdlib.PyCdlib()
    iso.new()
    iso.add_fp(BytesIO(b"boot" * 512), 2048, "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1", bootcatfile="/CAT.;1")
    iso.write(str(tmp_path / "disc.iso"))
    facts = inspect_image(tmp_path / "disc.iso")
    assert (facts.format, facts.boots, facts.arch) == ("iso", ("bios",), "x86_64")


def test_another_architecture_is_named(efi_disk: EfiDisk) -> None:
    disk = efi_disk(loader="BOOTAA64.EFI")
    for _ in range(2):
        with pytest.raises(ImageError, match="an image for aarch64, not for x86_64"):
            inspect_image(disk, arch="x86_64")
    assert inspect_image(disk, arch="aarch64").arch == "aarch64"


def test_an_unknown_disk_takes_the_architecture_asked_for(tmp_path: Path) -> None:
    (tmp_path / "blank.raw").write_bytes(bytes(1 << 20))
    assert inspect_image(tmp_path / "blank.raw", arch="riscv64").arch == "riscv64"
    assert inspect_image(tmp_path / "blank.raw").arch == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>\xc3\xa9</html>", "web page"),
        (b"\n  <html><body>404</body>", "web page"),
        (b"404 Not Found\n", "text file"),
        (b"\x1f\x8b\x08" + bytes(600), "gzip"),
        (b"\xfd7zXZ\0" + bytes(600), "xz archive"),
        (b"PK\3\4" + bytes(600), "zip"),
        (b"\x7fELF" + bytes(600), "ELF"),
        (bytes(0x202) + b"HdrS" + bytes(600), "Linux kernel"),
        (b"x" * 257 + b"ustar\0" + bytes(600), "tar archive"),
        (b"QFI\xfb\0\0\0\1" + bytes(600), "version 1"),
        (b"QFI\xfb\0\0\0\3" + bytes(600), "damaged qcow2 header"),
        (b"QFI\xfb\0\0", "damaged qcow2 header"),
        (b"vhdxfile" + bytes(600), "cannot be read"),
        (b"KDMV\1\0\0\0", "truncated"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        inspect_image(tmp_path / "image")
    assert str(tmp_path / "image") in str(caught.value)


@pytest.mark.parametrize("suffix", ["qcow2", "vhdx", "vdi", "iso"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"disk.{suffix}"
    path.write_bytes(bytes(range(256)) * 400)
    with pytest.raises(ImageError, match="not what its name says"):
        inspect_image(path)
    path.rename(tmp_path / "disk.img")
    assert inspect_image(tmp_path / "disk.img", arch="x86_64").format == "raw"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    for name, message in (("missing", "does not exist"), (".", "folder"), ("fifo", "neither a file")):
        with pytest.raises(ImageError, match=message):
            inspect_image(tmp_path / name)


@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk", "vhdx", "vdi"])
def test_a_truncated_image_is_refused(efi_disk: EfiDisk, tmp_path: Path, format: str) -> None:
    target = tmp_path / "cut"
    qemu_img("convert", "-f", "raw", "-O", format, efi_disk(), target)
    with target.open("r+b") as file:
        file.truncate(target.stat().st_size * 6 // 10)
    with pytest.raises(ImageError, match=r"truncated|cannot be read|damaged"):
        inspect_image(target)


def test_a_partition_beyond_the_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.raw").write_bytes(mbr([(0x80, 0x83, 2048, 20480)], b"\xeb").ljust(4 << 20, b"\0"))
    with pytest.raises(ImageError, match="truncated"):
        inspect_image(tmp_path / "cut.raw")


def test_an_image_marked_corrupt_is_refused(tmp_path: Path) -> None:
    write_overlay(tmp_path / "i.qcow2", 1 << 20)
    with (tmp_path / "i.qcow2").open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 2))
    with pytest.raises(ImageError, match="marked corrupt"):
        inspect_image(tmp_path / "i.qcow2")


def test_a_raw_backing_on_a_host_file_is_refused(tmp_path: Path) -> None:
    write_overlay(tmp_path / "evil.qcow2", 1 << 20, "/etc/shadow", "raw")
    with pytest.raises(ImageError, match=r"outside its folder: /etc/shadow"):
        inspect_image(tmp_path / "evil.qcow2")


def test_a_symlink_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.raw").symlink_to("/etc/passwd")
    write_overlay(tmp_path / "evil.qcow2", 1 << 20, "base.raw", "raw")
    with pytest.raises(ImageError, match="outside its folder"):
        inspect_image(tmp_path / "evil.qcow2")


@pytest.mark.parametrize("name", ['json:{"driver":"file"}', "nbd:localhost:1", "http://host/x"])
def test_a_backing_file_that_is_no_path_is_refused(tmp_path: Path, name: str) -> None:
    write_overlay(tmp_path / "evil.qcow2", 1 << 20, name, "raw")
    with pytest.raises(ImageError, match="no plain path"):
        inspect_image(tmp_path / "evil.qcow2")


def test_a_backing_file_of_unsaid_format_is_refused(tmp_path: Path, bios_disk: Path) -> None:
    write_overlay(tmp_path / "old.qcow2", 4 << 20, bios_disk.name, "raw")
    data = (tmp_path / "old.qcow2").read_bytes().replace(b"\xe2\x79\x2a\xca", b"\x11\x11\x11\x11", 1)
    (tmp_path / "old.qcow2").write_bytes(data)
    with pytest.raises(ImageError, match="does not say which format"):
        inspect_image(tmp_path / "old.qcow2")


def test_a_missing_backing_file_and_a_loop_are_refused(tmp_path: Path) -> None:
    write_overlay(tmp_path / "a.qcow2", 1 << 20, "b.qcow2", "qcow2")
    with pytest.raises(ImageError, match=r"b\.qcow2, does not exist"):
        inspect_image(tmp_path / "a.qcow2")
    write_overlay(tmp_path / "b.qcow2", 1 << 20, "a.qcow2", "qcow2")
    with pytest.raises(ImageError, match="is a loop"):
        inspect_image(tmp_path / "a.qcow2")


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", tmp_path / "i.qcow2", "1M")
    with pytest.raises(ImageError, match="keeps its data in another file"):
        inspect_image(tmp_path / "i.qcow2")


def test_a_vmdk_extent_on_a_host_file_is_refused(tmp_path: Path) -> None:
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n'
    (tmp_path / "evil.vmdk").write_text(text)
    with pytest.raises(ImageError, match=r"outside its folder: /etc/shadow"):
        inspect_image(tmp_path / "evil.vmdk")
    (tmp_path / "child.vmdk").write_text('# Disk DescriptorFile\nparentFileNameHint="base.vmdk"\n')
    with pytest.raises(ImageError, match=r"base\.vmdk as its parent"):
        inspect_image(tmp_path / "child.vmdk")


def test_a_second_look_reads_no_image(efi_disk: EfiDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = efi_disk()
    first = inspect_image(disk)
    monkeypatch.setattr(inspect_module, "read_chain", lambda *_, **__: pytest.fail("read again"))
    assert inspect_image(disk) == first


def test_a_changed_image_is_read_again(bios_disk: Path, tmp_path: Path) -> None:
    write_overlay(tmp_path / "o.qcow2", 4 << 20, bios_disk.name, "raw")
    assert inspect_image(tmp_path / "o.qcow2").boots == ("bios",)
    bios_disk.write_bytes(bytes(4 << 20))
    assert inspect_image(tmp_path / "o.qcow2").boots == ()
    bios_disk.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        inspect_image(tmp_path / "o.qcow2")


def test_a_damaged_memory_is_ignored(bios_disk: Path, tmp_path: Path) -> None:
    inspect_image(bios_disk)
    (record,) = (tmp_path / "tinamou-cache" / "inspected").iterdir()
    record.write_text("{")
    assert inspect_image(bios_disk).boots == ("bios",)
    assert json.loads(record.read_text())["finding"]["ways"] == ["bios"]


def test_a_table_with_a_wrong_checksum_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(gpt(4 << 20, ESP, 34, 1 << 40).ljust(4 << 20, b"\0"))
    data[600] ^= 1
    data[512 + 40] ^= 1
    (tmp_path / "d.raw").write_bytes(data)
    assert inspect_image(tmp_path / "d.raw").boots == ()


def test_a_raw_disk_into_which_the_guest_wrote_a_header_is_refused(tmp_path: Path) -> None:
    write_overlay(tmp_path / "disk.raw", 1 << 20, "secret.raw", "raw")
    (tmp_path / "secret.raw").write_bytes(bytes(1 << 20))
    with pytest.raises(ImageError, match="called raw and begins like qcow2"):
        inspect_image(tmp_path / "disk.raw")
