"""New empty images, and sizes: every format is made or refused, and nothing odd ends in a traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from disk_making import qemu_img
from typed import call

from tinamou.errors import if_full

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc")


def info(path: Path) -> tuple[str, int]:
    said = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True, text=True).stdout
    told = json.loads(said)
    return told["format"], told["virtual-size"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_says_its_format_and_sizes_are_whole_sectors(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("image", "create", f"new.{format}", "10000001").returncode == 0
    kind, size = info(tmp_path / f"new.{format}")
    assert kind == format
    assert size % 512 == 0
    assert 10000001 <= size <= 12 << 20  # vhdx has whole MiB


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a.img", "10M", "--format", "bogus"), "not a format"),
        (("a.vmdk", "10M", "--format", "qcow2"), "stands for vmdk"),
        (("a", "10M"), "does not tell"),
        (("a.qcow2", "10X"), "not a size"),
        (("a.qcow2", "9E"), "not a size"),
        (("a.qcow2", "0.3"), "not a whole number"),
        (("a.qcow2", "4P"), "holds 0 to"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    words: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("image", "create", *words)
    assert done.returncode == 110
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["vmdk", "vhdx", "vdi", "vpc"])
def test_a_format_without_another_size_says_so(format: str, tmp_path: Path) -> None:
    disk = tmp_path / f"disk.{format}"
    qemu_img("create", "-f", format, disk, "8M")
    before = disk.read_bytes()
    done = call("image", "resize", str(disk), "16M")
    assert done.returncode == 117
    assert f"its format is {format}" in done.stderr
    assert "image convert" in done.stderr
    assert "free some space" not in done.stderr
    assert disk.read_bytes() == before


def test_a_resized_raw_disk_has_whole_sectors(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    assert call("image", "create", str(disk), "1M").returncode == 0
    assert call("image", "resize", str(disk), "2000001").returncode == 0
    assert disk.stat().st_size == 2000384


@pytest.mark.parametrize("verb", [("image", "resize", "q.qcow2"), ("disk", "resize", "nobody", "disk0")])
def test_sizes_of_other_verbs(verb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-f", "qcow2", "q.qcow2", "8M")
    done = call(*verb, "10X")
    assert "Traceback" not in done.stderr
    assert done.returncode in (110, 118)


def test_free_space_is_advised_only_for_want_of_it() -> None:
    assert if_full("qemu-img: error while writing at byte 0: No space left on device").startswith("free some space")
    assert if_full('Failed to get "write" lock') == ""


def test_convert_refuses_a_format_nobody_knows(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, "8M")
    done = call("image", "convert", str(disk), str(tmp_path / "out.bogus"))
    assert done.returncode == 110
    assert "does not tell" in done.stderr
