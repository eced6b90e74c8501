"""Images made to harm who reads them: each costs little time and memory, opens nothing beside itself, and is refused."""

from __future__ import annotations

import asyncio
import io
import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from disk_making import ESP, gpt, mbr, qemu_img

from tinamou.errors import ImageError
from tinamou.images import blocks, fat, offline, verify
from tinamou.images.importing import convert
from tinamou.images.inspect import image_files, inspect_image
from tinamou.images.vmdk import extent_files
from tinamou.system.qcow2 import write_overlay

sys.path.append(str(Path(__file__).parent.parent / "fuzz"))
import fuzz_seeds as seeds

pytestmark = pytest.mark.timeout(60)


def limited(code: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that may take 256 MiB more than it has after its imports."""
    prologue = (
        "import resource, sys; from tinamou.errors import ImageError; from tinamou.images.inspect import inspect_image\n"
        "from tinamou.images import blocks, bootable, chain, fat, foreign\nfrom tinamou.system import codecs, qcow2\n"
        "codecs._zstandard(); import heapq, json, zlib\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prologue + code, *map(str, words)], capture_output=True, text=True, check=False
    )


def inspected(path: Path) -> str:
    """What inspecting a file says in a process with little memory."""
    done = limited("try: print(inspect_image(sys.argv[1]).boots)\nexcept ImageError as error: print(error)", path)
    assert not done.stderr
    return done.stdout


def bomb(target: Path, packed: str) -> Path:
    """A qcow2 file whose first cluster is a stream of 1 GiB in 64 KiB."""
    stream = b""
    if packed == "zstd":
        with io.BytesIO() as out:
            with seeds.zstd.ZstdFile(out, "wb") as file:
                for _ in range(1024):
                    file.write(bytes(1 << 20))
            stream = out.getvalue()
    else:
        packer = zlib.compressobj(9, wbits=-12)
        stream = b"".join([packer.compress(bytes(1 << 20)) for _ in range(48)])[: 48 << 10]
    image = bytearray(seeds.qcow2(bytes(range(256)) * 256, packed=packed, bits=16))
    place = len(image) // (1 << 16) * (1 << 16) + (1 << 16)
    (l1,) = struct.unpack_from(">Q", image, 3 << 16)
    sectors = (len(stream) - 1) // 512
    struct.pack_into(">Q", image, l1 & (1 << 56) - 1, 1 << 62 | sectors << 54 | place)
    target.write_bytes(image.ljust(place, b"\0") + stream + bytes(-len(stream) % 512))
    return target


@pytest.mark.parametrize("packed", ["zstd", "zlib"])
def test_a_cluster_that_unpacks_to_a_gibibyte(tmp_path: Path, packed: str) -> None:
    told = inspected(bomb(tmp_path / "bomb.qcow2", packed))
    assert ("is corrupt" in told) == (packed == "zstd")


@pytest.mark.parametrize("packed", ["zlib", "zstd"])
@pytest.mark.parametrize("bits", [9, 12, 16, 21])
def test_the_images_that_are_made_here_are_sound(tmp_path: Path, packed: str, bits: int) -> None:
    disk = seeds.efi_disk()
    (tmp_path / "i.qcow2").write_bytes(seeds.qcow2(disk, packed=packed, bits=bits))
    assert inspect_image(tmp_path / "i.qcow2").boots == ("uefi",)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "i.qcow2", tmp_path / "i.raw")
    assert (tmp_path / "i.raw").read_bytes().startswith(disk)


def test_a_table_of_four_million_entries(tmp_path: Path) -> None:
    image = bytearray(seeds.qcow2(b"x" * 512, bits=9))
    struct.pack_into(">IQ", image, 36, 4 << 20, 1 << 20)
    with (tmp_path / "wide.qcow2").open("wb") as file:
        file.write(image)
        file.seek(1 << 20)
        file.write(struct.pack(">Q", 1 << 63 | 4 * 512) * (4 << 20))
    assert inspected(tmp_path / "wide.qcow2") == "()\n"


def test_tables_that_are_all_the_same_one(tmp_path: Path) -> None:
    """Two thousand times 2 MiB are read, where each entry leads to the same table."""
    image = bytearray(seeds.qcow2(bytes(1 << 21), bits=21))
    struct.pack_into(">Q", image, 24, 2000 << 39)
    struct.pack_into(">I", image, 36, 2000)
    (l1,) = struct.unpack_from(">Q", image, 40)
    image[l1 : l1 + 16000] = struct.pack(">Q", 1 << 63 | 4 << 21) * 2000
    (tmp_path / "same.qcow2").write_bytes(image)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert inspected(tmp_path / "same.qcow2") == "()\n"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_inblock - before.ru_inblock < 1 << 17


@pytest.mark.parametrize("entries", [1 << 63, (1 << 64) - 1])
def test_a_partition_table_beyond_every_disk(tmp_path: Path, entries: int) -> None:
    data = bytearray(gpt(4 << 20, ESP, 34, 2000).ljust(4 << 20, b"\0"))
    struct.pack_into("<Q", data, 512 + 72, entries)
    (tmp_path / "d.raw").write_bytes(seeds.gpt_mended(bytes(data)))
    assert inspect_image(tmp_path / "d.raw").boots == ()


def test_a_folder_that_goes_round_beyond_the_end(tmp_path: Path) -> None:
    volume = bytearray(seeds.fat(16))
    struct.pack_into("<HH", volume, 512 + 4, 0, 0xFFF0)
    at = volume.index(b"EFI        ")
    struct.pack_into("<H", volume, at + 26, 8000)
    volume += bytes(512 + 16002 - len(volume) if len(volume) < 16514 else 0)
    struct.pack_into("<H", volume, 512 + 8000 * 2, 8000)
    (tmp_path / "volume").write_bytes(volume)
    assert fat.list_folder(blocks.RawBlocks(str(tmp_path / "volume")), 0, ("EFI", "BOOT")) == frozenset()


def test_a_disk_that_is_strewn_over_a_gibibyte(tmp_path: Path) -> None:
    """Each piece would be a run of qemu-img, or the unpacking of a cluster."""
    made: list[int] = []

    def make(number: int) -> bytes:
        made.append(number)
        return b""

    pieces = blocks._Pieces("disk.vmdk")
    with pytest.raises(ImageError, match="strewn over more than 64 MiB"):
        for number in range(1000):
            pieces.piece(number, 1 << 20, make)
    assert len(made) == 64


# ── vmdk: what it would make QEMU open ──

LINE = '# Disk DescriptorFile\nversion=1\ncreateType="vmfs"\n'
EVIL = {
    "an open quote": LINE + 'RW 8 VMFS "/etc/shadow\n',
    "no line of its own": LINE + 'x RW 8 VMFS "/etc/shadow"\n',
    "over several lines": LINE + 'RW\n8\nVMFS\n"/etc/shadow"\n',
    "a name that QEMU cuts": LINE + f'RW 8 VMFS "{"/" * 500}etc/shadow/../../{{folder}}/own"\n',
    "far behind": LINE + "#" * 70000 + '\nRW 8 VMFS "/etc/shadow"\n',
    "a driver": LINE + 'RW 8 VMFS "nbd:localhost:1"\n',
    "a parent in the middle of a line": LINE + 'RW 8 VMFS "own"\nxparentFileNameHint="/etc/shadow"\n',
}


@pytest.mark.parametrize("name", EVIL)
def test_a_description_that_names_a_file_of_the_host(tmp_path: Path, name: str) -> None:
    (tmp_path / "own").write_bytes(bytes(4096))
    (tmp_path / "nbd:localhost:1").write_bytes(bytes(4096))
    text = EVIL[name].replace("{folder}", str(tmp_path).lstrip("/"))
    (tmp_path / "evil.vmdk").write_text(text)
    with pytest.raises(ImageError, match=r"outside its folder|as its parent"):
        inspect_image(tmp_path / "evil.vmdk")


def test_a_description_longer_than_its_header_says(tmp_path: Path) -> None:
    text = LINE + "#" * 600 + '\nRW 8 VMFS "/etc/shadow"\n'
    (tmp_path / "evil.vmdk").write_bytes(seeds.vmdk(text, capacity=0)[:36] + struct.pack("<Q", 1) + seeds.vmdk(text, 0)[44:])
    with pytest.raises(ImageError, match="outside its folder"):
        inspect_image(tmp_path / "evil.vmdk")


def test_an_extent_that_names_others(tmp_path: Path) -> None:
    (tmp_path / "inner.vmdk").write_bytes(seeds.vmdk(LINE + 'RW 8 VMFS "/etc/shadow"\n', capacity=0))
    text = LINE + 'RW 8 SPARSE "inner.vmdk"\n'
    with pytest.raises(ImageError, match="names others"):
        extent_files(tmp_path / "outer.vmdk", text.encode()) if (tmp_path / "outer.vmdk").write_text(text) else None


def test_a_description_of_a_mebibyte_of_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "blank.vmdk").write_text(LINE + "\n" * (1 << 20))
    assert extent_files(tmp_path / "blank.vmdk", LINE.encode()) == []


def test_a_foreign_image_below_an_overlay_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "base.vmdk").write_text(LINE + 'RW 8 VMFS "/etc/shadow"\n')
    write_overlay(tmp_path / "top.qcow2", 4096, "base.vmdk", "vmdk")
    with pytest.raises(ImageError, match="outside its folder"):
        inspect_image(tmp_path / "top.qcow2")


@pytest.mark.parametrize("name", ["host_device:/dev/zero", "file:nbd:x", "a:b/c"])
def test_a_backing_file_that_is_the_name_of_a_driver(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition("/")[0]).mkdir()
    write_overlay(tmp_path / "evil.qcow2", 1 << 20, name, "raw")
    with pytest.raises(ImageError, match="no plain path"):
        inspect_image(tmp_path / "evil.qcow2")


def test_all_files_of_an_image_are_known(tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "two.vmdk", "1M")
    write_overlay(tmp_path / "top.qcow2", 1 << 20, "two.vmdk", "vmdk")
    names = [tmp_path / name for name in ("top.qcow2", "two.vmdk", "two-flat.vmdk")]
    for _ in range(2):
        assert image_files(tmp_path / "top.qcow2") == tuple(map(str, names))


# ── qemu-img that was taken over ──


def stand_in(folder: Path, script: str) -> str:
    """What a qemu-img would do that an image has taken over."""
    program = folder / "qemu-img"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("while :; do :; done", "computed for longer"),
        ("exec sleep 1000", "did not finish within"),
        ("echo '{}'", "does not say how large"),
        ('echo "{\\"virtual-size\\": -1}"', "does not say how large"),
        ("head -c 2000000 /dev/zero", "too large"),
        ("printf '[%.0s' $(seq 100000)", "does not say what it is"),
        ("exec /usr/bin/python3 -S -c 'x = bytes(8 << 30)'", "MemoryError"),
        ("echo trouble >&2; exit 3", "trouble"),
    ],
)
def test_a_qemu_img_that_misbehaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    monkeypatch.setattr("tinamou.images.qemu_img._SECONDS", 2.0 if "sleep" in script else 50.0)
    monkeypatch.setattr("tinamou.images.qemu_img._CPU_SECONDS", 1 if "while" in script else 50)
    monkeypatch.setattr("tinamou.images.qemu_img.QEMU_IMG", stand_in(tmp_path, script))
    qemu_img("create", "-q", "-f", "vmdk", tmp_path / "a.vmdk", "1M")
    with pytest.raises(ImageError) as caught:
        inspect_image(tmp_path / "a.vmdk")
    assert re.search(why, caught.value.why)


def test_a_conversion_that_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.raw").write_bytes(mbr([(0x80, 0x83, 1, 1)], b"\xeb").ljust(1 << 20, b"\0"))
    stand_in(tmp_path, "exec sleep 1000")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(offline, "_PATIENCE", 1.0)
    with pytest.raises(ImageError, match="converting") as caught:
        asyncio.run(convert(tmp_path / "disk.raw", tmp_path / "disk.qcow2", "qcow2"))
    assert "no percent further" in caught.value.why
    assert not (tmp_path / "disk.qcow2").exists()


# ── packed images ──


@pytest.mark.parametrize("outer", ["xz", "zst"])
def test_a_packed_image_of_several_streams(tmp_path: Path, outer: str) -> None:
    pack = seeds.lzma.compress if outer == "xz" else seeds.zstd.compress
    parts = [os.urandom(100_000), bytes(300_000), b"end"]
    (tmp_path / "packed").write_bytes(b"".join(map(pack, parts)))
    assert verify.unpack(tmp_path / "packed", f"raw.{outer}", tmp_path / "disk") == "raw"
    assert (tmp_path / "disk").read_bytes() == b"".join(parts)


def test_a_packed_image_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_LARGEST", 1 << 20)
    (tmp_path / "packed").write_bytes(seeds.lzma.compress(bytes(1 << 24)))
    with pytest.raises(ImageError, match="cannot be unpacked"):
        verify.unpack(tmp_path / "packed", "raw.xz", tmp_path / "disk")
    assert not (tmp_path / "disk").exists()
