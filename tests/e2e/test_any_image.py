"""Images nobody has described: a disc, and disks of every format, boot, and are waited for only as far as can be."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from greeting import SECTOR, greeting_disk
from typed import call, eventually

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with that boot sector and one active partition."""
    path = tmp_path_factory.mktemp("image") / "disk.img"
    return greeting_disk(path)


def boots(path: Path, *options: str) -> None:
    """It starts, says so at once, and says on its console what its boot sector says."""
    done = call("run", str(path), "-d", "--name", "some", *options)
    try:
        assert (done.returncode, done.stdout) == (0, "some\n"), done.stderr
        assert "not known" in done.stderr and "tinamou console some" in done.stderr
        eventually(lambda: "hello from the disk" in call("logs", "some").stdout, "the boot sector's greeting")
        assert json.loads(call("show", "some", "--json").stdout)["state"] == "running"
    finally:
        call("rm", "-f", "some")


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vhdx", "vdi", "parallels"])
def test_a_disk(form: str, raw: Path, tmp_path: Path, leftovers) -> None:
    path = tmp_path / f"disk.{form}"
    subprocess.run(["qemu-img", "convert", "-O", form, str(raw), str(path)], check=True)
    boots(path)
    assert leftovers.found() == []


@pytest.mark.skipif(not shutil.which("genisoimage"), reason="genisoimage is not installed (script/setup test)")
def test_a_disc(tmp_path: Path, leftovers) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boot.bin").write_bytes(SECTOR.ljust(2048, b"\0"))
    disc = tmp_path / "disc.iso"
    words = ["genisoimage", "-quiet", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4", "-o", str(disc), str(tree)]
    subprocess.run(words, check=True)
    boots(disc)
    boots(disc, "--disk", "size=64M")
    assert leftovers.found() == []


def test_it_starts_again(raw: Path, leftovers) -> None:
    assert call("run", str(raw), "-d", "--name", "some").returncode == 0
    try:
        assert call("kill", "some").returncode == 0
        assert call("start", "some").returncode == 0
    finally:
        call("rm", "-f", "some")
    assert leftovers.found() == []
