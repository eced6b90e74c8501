"""Images imported, converted, resized and put on other bases: always the same content."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_making import qemu_img

from tinamou.errors import ImageError
from tinamou.facts import ImageFacts
from tinamou.images.importing import convert, import_image, imported, rebase, resize
from tinamou.images.inspect import inspect_image
from tinamou.images.resolve import resolve
from tinamou.machine.chains import existing_chains
from tinamou.spec import load_spec
from tinamou.system.qcow2 import read_header, write_overlay
from tinamou.units import Size

EfiDisk = Callable[..., Path]


@pytest.mark.parametrize("format", ["qcow2", "raw", "vmdk", "vhdx", "vdi", "parallels"])
def test_an_imported_image_is_found_by_name(efi_disk: EfiDisk, tmp_path: Path, format: str) -> None:
    source = tmp_path / f"x.{format}"
    qemu_img("convert", "-f", "raw", "-O", format, efi_disk(), source)
    facts = asyncio.run(import_image(source, "mine"))
    assert resolve("mine", "x86_64") == facts == imported("mine", "x86_64")
    assert (facts.format, facts.boots, facts.size) == ("qcow2", ("uefi",), 8 << 20)
    qemu_img("compare", "-f", format, "-F", "qcow2", source, facts.disk)
    assert Path(facts.disk).stat().st_mode & 0o222 == 0


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system whose files can share blocks."""
    make = shutil.which(f"mkfs.{request.param}", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if make is None:
        pytest.skip(f"mkfs.{request.param} is not installed (script/packages test)")
    disk, folder = tmp_path / "disk", tmp_path / "sharing"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([make, "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def shares_blocks(path: str | Path) -> bool:
    """Whether the file system says so of any of a file's extents."""
    said = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True)
    return "shared" in said.stdout


@pytest.mark.root
def test_an_import_shares_its_blocks_where_it_can(efi_disk: EfiDisk, sharing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINAMOU_CACHE", str(sharing / "cache"))
    source = sharing / "x.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", efi_disk(), source)
    facts = asyncio.run(import_image(source, "mine"))
    assert shares_blocks(facts.disk) and shares_blocks(source)
    qemu_img("compare", source, facts.disk)
    qemu_img("snapshot", "-c", "inner", source)
    other = asyncio.run(import_image(source, "other"))
    assert not shares_blocks(other.disk) and read_header(other.disk).snapshots == 0
    qemu_img("compare", source, other.disk)


def test_the_same_content_is_kept_once(efi_disk: EfiDisk, tmp_path: Path) -> None:
    disk = efi_disk()
    first, second = (asyncio.run(import_image(disk, "mine")) for _ in range(2))
    assert first == second
    assert len(list(Path(first.disk).parent.parent.glob("import-*"))) == 1
    assert not list(Path(first.disk).parent.parent.glob(".building-*"))


def test_an_import_that_cannot_be_is_refused(efi_disk: EfiDisk, tmp_path: Path) -> None:
    (tmp_path / "blank.raw").write_bytes(bytes(1 << 20))
    for file, name, message in (
        (tmp_path / "blank.raw", "blank", "architecture"),
        (efi_disk(), "../up", "name"),
        (tmp_path / "missing", "missing", "does not exist"),
    ):
        with pytest.raises(ImageError, match=message):
            asyncio.run(import_image(file, name))


def test_convert_resize_and_rebase(efi_disk: EfiDisk, tmp_path: Path) -> None:
    disk = efi_disk()
    asyncio.run(convert(disk, tmp_path / "new.vmdk", "vmdk"))
    with pytest.raises(ImageError, match="exists already"):
        asyncio.run(convert(disk, tmp_path / "new.vmdk", "vmdk"))
    write_overlay(tmp_path / "o.qcow2", 8 << 20, disk.name, "raw")
    asyncio.run(rebase(tmp_path / "o.qcow2", None))
    assert read_header(tmp_path / "o.qcow2").backing_file == ""
    qemu_img("compare", tmp_path / "o.qcow2", disk)
    asyncio.run(resize(tmp_path / "o.qcow2", Size(16 << 20)))
    assert inspect_image(tmp_path / "o.qcow2").size == 16 << 20
    with pytest.raises(ImageError, match="cut off"):
        asyncio.run(resize(tmp_path / "o.qcow2", Size(8 << 20)))


def test_a_file_that_ends_within_a_sector_is_known(tmp_path: Path) -> None:
    (tmp_path / "odd.raw").write_bytes(bytes(1000001))
    (tmp_path / "whole.raw").write_bytes(bytes(1000448))
    spec = load_spec({"disk": [{"path": str(tmp_path / name)} for name in ("odd.raw", "whole.raw")]})
    found = existing_chains(spec, ImageFacts("tiny", "x86_64"), tmp_path / "none")
    assert [found[name][0].odd for name in ("disk0", "disk1")] == [True, False]


def test_a_disk_somebody_writes_to_is_not_taken(efi_disk: EfiDisk, tmp_path: Path) -> None:
    """What a machine runs on is a moment's state, and half of it lies in the guest's memory."""
    disk = efi_disk()
    with disk.open("r+b") as writer:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 101, 1, 0)  # as QEMU says that it writes
        fcntl.fcntl(writer, fcntl.F_OFD_SETLK, lock)
        for work in (
            import_image(disk, "mine"),
            convert(disk, tmp_path / "new.qcow2", "qcow2"),
            resize(disk, Size(16 << 20)),
        ):
            with pytest.raises(ImageError, match="is in use"):
                asyncio.run(work)
    assert imported("mine", "x86_64") is None
    assert not (tmp_path / "new.qcow2").exists()


def test_an_imported_guest_is_like_another(efi_disk: EfiDisk) -> None:
    like = ImageFacts("debian", "x86_64", agent=True, seed="nocloud", ssh=True, user="debian")
    facts = asyncio.run(import_image(efi_disk(), "mine", like=like))
    assert (facts.agent, facts.seed, facts.ssh, facts.user) == (True, "nocloud", True, "debian")
    assert imported("mine", "x86_64") == facts


def test_an_encrypted_image_is_refused_with_the_way_to_decrypt_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pass")
    locked, plain = tmp_path / "locked.qcow2", tmp_path / "plain.qcow2"
    secret = ("--object", f"secret,id=key,file={tmp_path}/key")
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    for attempt in range(20):  # where the kernel counts time in ticks, qemu-img may find that a key took none, and gives up
        try:
            qemu_img("create", "-q", *secret, "-f", "qcow2", "-o", options, locked, "8M")
            break
        except subprocess.CalledProcessError:
            assert attempt < 19
    for doing in (
        lambda: import_image(locked, "locked", arch="x86_64"),
        lambda: convert(locked, tmp_path / "copy.qcow2", "qcow2"),
        lambda: resize(locked, Size(16 << 20)),
    ):
        with pytest.raises(ImageError, match="is encrypted") as refused:
            asyncio.run(doing())
    words = str(refused.value.fix).replace("KEY", f"{tmp_path}/key").replace("COPY", str(plain)).split()
    subprocess.run(words, check=True)
    assert not read_header(plain).encryption
