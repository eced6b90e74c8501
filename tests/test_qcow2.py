"""The qcow2 header reader and overlay writer, held against qemu-img."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinamou.prepare.apply import run_timed_hash
from tinamou.system.qcow2 import Qcow2Error, encode_overlay, parse_header, put_on, read_header, write_overlay
from tinamou.system.qcow2 import first_cluster as first_cluster_of

needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


def qemu_img(*argv: str | Path) -> str:
    return subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True, text=True).stdout


def qemu_img_of_a_key(*argv: str | Path) -> None:
    run_timed_hash(["qemu-img", *map(str, argv)])


@needs_qemu_img
@pytest.mark.parametrize("size", [0, 512, 1 << 20, (512 << 20) + 512, 10 << 30, 5 << 40, 100 << 40])
def test_an_overlay_is_clean_for_qemu_img(tmp_path: Path, size: int) -> None:
    write_overlay(tmp_path / "o.qcow2", size)
    qemu_img("check", tmp_path / "o.qcow2")
    info = json.loads(qemu_img("info", "--output=json", tmp_path / "o.qcow2"))
    assert (info["virtual-size"], info["format"]) == (size, "qcow2")


@needs_qemu_img
def test_an_overlay_reads_and_keeps_its_backing_file(tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(b"tinamou!" * 65536)
    write_overlay(tmp_path / "o.qcow2", 1 << 20, "base.raw", "raw")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", tmp_path / "o.qcow2", tmp_path / "base.raw")
    subprocess.run(["qemu-io", "-c", "write -P 7 64k 128k", tmp_path / "o.qcow2"], check=True, capture_output=True)
    qemu_img("check", tmp_path / "o.qcow2")
    header = read_header(tmp_path / "o.qcow2")
    assert (header.backing_file, header.backing_format, header.size) == ("base.raw", "raw", 1 << 20)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "o.qcow2").write_text("mine")
    with pytest.raises(FileExistsError):
        write_overlay(tmp_path / "o.qcow2", 1 << 20)
    assert (tmp_path / "o.qcow2").read_text() == "mine"


def test_a_backing_file_without_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format"):
        write_overlay(tmp_path / "o.qcow2", 1 << 20, "base.raw")
    with pytest.raises(ValueError, match="1023"):
        write_overlay(tmp_path / "o.qcow2", 1 << 20, "x" * 1024, "raw")
    with pytest.raises(ValueError, match="holds"):
        write_overlay(tmp_path / "o.qcow2", 1 << 60)
    assert list(tmp_path.iterdir()) == []


@needs_qemu_img
@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ("compat=0.10", "version", 2),
        ("compat=1.1", "version", 3),
        ("cluster_size=2M", "cluster_bits", 21),
        ("cluster_size=512", "cluster_bits", 9),
        ("extended_l2=on", "extended_l2", True),
        ("compression_type=zstd", "compression", "zstd"),
        ("refcount_bits=64", "refcount_bits", 64),
        ("data_file=d.raw", "data_file", "d.raw"),
    ],
)
def test_headers_of_qemu_img_are_read(tmp_path: Path, options: str, field: str, expected: object) -> None:
    image = tmp_path / "i.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "64M"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert getattr(read_header(image), field) == expected


@needs_qemu_img
def test_encryption_snapshots_and_backing_of_qemu_img_are_read(tmp_path: Path) -> None:
    luks = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
    qemu_img_of_a_key("create", "-q", "-f", "qcow2", *luks, tmp_path / "l.qcow2", "1M")
    assert read_header(tmp_path / "l.qcow2").encryption == "luks"
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "s.qcow2", "1M")
    qemu_img("snapshot", "-c", "one", tmp_path / "s.qcow2")
    assert read_header(tmp_path / "s.qcow2").snapshots == 1
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "s.qcow2", "-F", "qcow2", tmp_path / "b.qcow2")
    assert read_header(tmp_path / "b.qcow2").backing_file == str(tmp_path / "s.qcow2")


def first_cluster() -> bytearray:
    pieces = encode_overlay(1 << 30, "base.raw", "raw")
    return bytearray(pieces[0][1].ljust(65536, b"\0"))


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (0, ">I", 0, "magic"),
        (4, ">I", 4, "version"),
        (8, ">Q", 65530, "outside the header"),
        (16, ">I", 5000, "claims 5000"),
        (20, ">I", 60, "cluster_bits"),
        (24, ">Q", 1 << 63, "virtual size"),
        (32, ">I", 9, "encryption"),
        (36, ">I", 1, "too small"),
        (36, ">I", 0xFFFFFFFF, "more than"),
        (40, ">Q", 3, "L1 table's offset"),
        (48, ">Q", 0, "refcount table"),
        (56, ">I", 0, "refcount table"),
        (60, ">I", 1 << 20, "snapshots"),
        (72, ">Q", 1 << 40, "unknown"),
        (96, ">I", 9, "refcount_order"),
        (100, ">I", 1 << 30, "length"),
        (104, ">B", 1, "compression"),
        (116, ">I", 1 << 20, "runs out"),
    ],
)
def test_a_flipped_field_is_named(offset: int, form: str, value: int, message: str) -> None:
    data = first_cluster()
    struct.pack_into(form, data, offset, value)
    with pytest.raises(Qcow2Error, match=message):
        parse_header(bytes(data))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6), st.integers(0, 300))
def test_damaged_headers_never_end_in_another_error(changes: list[tuple[int, int]], length: int) -> None:
    data = first_cluster()
    for offset, value in changes:
        data[offset] = value
    try:
        parse_header(bytes(data[:length] if length < 250 else data))
    except Qcow2Error:
        pass


@needs_qemu_img
def test_an_overlay_of_an_encrypted_file_is_encrypted_with_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("passphrase")
    secret = ["--object", f"secret,id=key,file={tmp_path}/key"]
    luks = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    qemu_img_of_a_key("create", "-q", *secret, "-f", "qcow2", "-o", luks, tmp_path / "base", "4M")
    base = read_header(tmp_path / "base")
    offset, length = base.crypto
    assert base.encryption == "luks"
    assert length
    crypto = (tmp_path / "base").read_bytes()[offset : offset + length]
    write_overlay(tmp_path / "over", int(base.size), str(tmp_path / "base"), "qcow2", crypto=crypto)
    over = read_header(tmp_path / "over")
    assert (over.encryption, over.crypto[1], over.backing_format) == ("luks", length, "qcow2")
    opened = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=key,file.driver=file,file.filename={path}"
    below = "backing.driver=qcow2,backing.encrypt.format=luks,backing.encrypt.key-secret=key,backing.file.driver=file"
    whole = f"{opened.format(path=tmp_path / 'over')},{below},backing.file.filename={tmp_path}/base"
    written = [
        "qemu-io",
        *secret,
        "--image-opts",
        whole,
        "-c",
        "write -P 0x61 0 64k",
        "-c",
        "flush",
        "-c",
        "read -P 0x61 0 64k",
    ]
    done = subprocess.run(written, check=True, capture_output=True, text=True)
    assert "failed" not in done.stdout
    assert b"a" * 512 not in (tmp_path / "over").read_bytes()
    subprocess.run(["qemu-img", "check", "-q", *secret, "--image-opts", whole], check=True)
    wrong = ["qemu-img", "check", "-q", "--object", "secret,id=key,data=wrong", "--image-opts", whole]
    assert subprocess.run(wrong, check=False, capture_output=True).returncode != 0


OPTIONS = ["compat=0.10", "compat=1.1", "cluster_size=2M", "cluster_size=4k", "extended_l2=on", "compression_type=zstd"]


def on_another(path: Path, backing: str) -> None:
    """The file itself with another backing file in its header."""
    with path.open("r+b") as file:
        file.write(put_on(first_cluster_of(file.fileno()), backing, "qcow2"))


@needs_qemu_img
@pytest.mark.parametrize("options", OPTIONS)
def test_a_file_put_on_another_is_as_qemu_img_puts_it(tmp_path: Path, options: str) -> None:
    for name in ("old", "new"):
        qemu_img("create", "-q", "-f", "qcow2", tmp_path / f"{name}.qcow2", "64M")
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", "old.qcow2", "-F", "qcow2", ours)
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 192k", ours], check=True, capture_output=True)
    theirs.write_bytes(ours.read_bytes())
    before = read_header(ours)
    on_another(ours, "sub/../new.qcow2")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "sub/../new.qcow2", "-F", "qcow2", theirs)
    assert read_header(ours) == read_header(theirs) == replace(before, backing_file="sub/../new.qcow2")
    on_another(ours, "new.qcow2")
    qemu_img("check", "-q", ours)
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "new.qcow2", "-F", "qcow2", theirs)
    qemu_img("compare", "-q", ours, theirs)
    assert json.loads(qemu_img("info", "--output=json", ours))["backing-filename"] == "new.qcow2"


def test_an_overlay_put_on_another_differs_in_its_header_alone(tmp_path: Path) -> None:
    for name, backing in (("a", "base.raw"), ("b", "other.qcow2")):
        write_overlay(tmp_path / name, 1 << 30, backing, backing.partition(".")[2])
    on_another(tmp_path / "a", "other.qcow2")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_put_on_another_is_refused() -> None:
    sound = bytes(first_cluster())
    assert parse_header(put_on(sound, "x" * 1023, "qcow2")).backing_file == "x" * 1023
    encrypted, elsewhere = bytearray(sound), bytearray(sound)
    struct.pack_into(">I", encrypted, 32, 2)
    struct.pack_into(">Q", elsewhere, 72, 4)
    for data in (encrypted, elsewhere):
        with pytest.raises(Qcow2Error, match="encrypted, or in another file"):
            put_on(bytes(data), "b.qcow2", "qcow2")
    for name in ("", "x" * 1024):
        with pytest.raises(Qcow2Error, match=f"name of {len(name)} bytes"):
            put_on(sound, name, "qcow2")
    with pytest.raises(Qcow2Error, match="shorter than a cluster"):
        put_on(sound[:4096], "b.qcow2", "qcow2")
    with pytest.raises(Qcow2Error, match="magic"):
        put_on(bytes(65536), "b.qcow2", "qcow2")
    small = bytearray(sound[:512])
    struct.pack_into(">I", small, 20, 9)
    struct.pack_into(">I", small, 36, 1 << 18)
    with pytest.raises(Qcow2Error, match="no room"):
        put_on(bytes(small), "x" * 500, "qcow2")
