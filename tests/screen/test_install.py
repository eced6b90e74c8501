"""Guests installed from discs: answers find the installer's kernel, what was written is started, failures are shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from test_pure import unpacked
from typed import call, tinamou

from tinamou.errors import ImageError
from tinamou.images import cpio
from tinamou.images.installer import kind_of, prepared
from tinamou.images.resolve import resolve
from tinamou.system.iso import build_iso

PRESEED = b"d-i debian-installer/locale string en_US\n"

INIT = b"""#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for one in virtio_pci virtio_blk; do modprobe $one; done
for wait in 1 2 3 4 5 6 7 8 9; do [ -b /dev/vda ] || sleep 1; done
grep -q locale /preseed.cfg || { echo 'no answers'; poweroff -f; }
echo 'writing the disk'
dd if=/payload of=/dev/vda bs=1M && sync && reboot -f
"""


def test_answers_are_known_by_their_lines():
    assert kind_of(PRESEED) == "preseed"
    assert kind_of(b"text\nrootpw --lock\n%packages\n%end\n") == "kickstart"
    assert kind_of(b"#cloud-config\nautoinstall:\n  version: 1\n") == "autoinstall"
    with pytest.raises(ImageError, match="no installer"):
        kind_of(b"hello\n")


def test_a_disc_gives_kernel_and_initrd(tmp_path):
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"install.amd/vmlinuz": b"K" * 5000, "install.amd/initrd.gz": b"R" * 4999, "x": "y"})
    kernel, initrd, cmdline = prepared(disc, PRESEED, tmp_path)
    assert kernel.read_bytes() == b"K" * 5000
    assert initrd.read_bytes() == b"R" * 4999 + b"\0" + cpio.archive({"preseed.cfg": cpio.file(PRESEED)})
    assert "file=/preseed.cfg" in cmdline
    for answers, words in ((b"%packages\n", "no disc of an installer"), (b'{"ignition": {}}', "ignition answers")):
        with pytest.raises(ImageError, match=words):
            prepared(disc, answers, tmp_path)
    (tmp_path / "bad.iso").write_bytes(b"\0" * 70000)
    with pytest.raises(ImageError, match="cannot be read as a disc"):
        prepared(tmp_path / "bad.iso", PRESEED, tmp_path)


@pytest.fixture(scope="session")
def installer(packaged, tmp_path_factory):
    """A disc laid out as Debian's, whose installer writes GRUB's rescue image to the first disk."""
    tiny = resolve("tiny", "x86_64")
    grub = Path(packaged("grub-rescue-pc")).read_bytes()
    initrd = Path(tiny.initrd).read_bytes()
    initrd += bytes(-len(initrd) % 4) + cpio.archive({"init": cpio.file(INIT, 0o755), "payload": cpio.file(grub)})
    folder = tmp_path_factory.mktemp("disc")
    (folder / "tree" / "install.amd").mkdir(parents=True)
    (folder / "tree" / "install.amd" / "vmlinuz").write_bytes(Path(tiny.kernel).read_bytes())
    (folder / "tree" / "install.amd" / "initrd.gz").write_bytes(initrd)
    (folder / "tree" / "boot.bin").write_bytes(b"\xeb\xfe" + bytes(2046))  # a boot loader that does nothing
    words = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]
    subprocess.run([*words, "-o", folder / "debian.iso", folder / "tree"], check=True, capture_output=True)
    return folder / "debian.iso"


@pytest.mark.vm
def test_what_is_not_installable_is_refused(tmp_path):
    (tmp_path / "a.cfg").write_bytes(PRESEED)
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"a": "b"})
    refused = call("install", str(disc), "--name", "n", "--answers", str(tmp_path / "a.cfg"))
    assert (refused.returncode, "none to install to" in refused.stderr) == (110, True)
    refused = call("install", str(disc), "--name", "n", "--disk", "size=1G", "--answers", str(tmp_path / "a.cfg"))
    assert (refused.returncode, "no disc of an installer" in refused.stderr) == (117, True)


@pytest.mark.vm
@pytest.mark.slow
def test_a_disk_is_written_and_started(installer, tmp_path, state):
    (tmp_path / "answers").write_bytes(PRESEED)
    words = ("install", str(installer), "--memory", "512M", "--net", "none", "--disk", "size=64M")
    more = ("--answers", str(tmp_path / "answers"), "--firmware", "bios")
    try:
        assert tinamou(*words, "--name", "done", *more, "--until", "GNU GRUB", "--timeout", "400") == "done\n"
        shown = json.loads(tinamou("show", "done", "--json"))
        assert (shown["state"], shown["ephemeral"]) == ("running", False)
        assert "writing the disk" in (state / "machines" / "done" / "serial.log").read_text()
        assert "kernel" not in shown["spec"].get("boot", {})
        failed = call(*words, "--name", "never", *more, "--until", "no such words", "--timeout", "60")
        assert failed.returncode == 116, failed.stderr
        assert "GNU GRUB" in failed.stderr
        assert unpacked((state / "machines" / "never" / "last-screen.png").read_bytes())[:2] == (720, 400)
        assert json.loads(tinamou("show", "never", "--json"))["state"] == "stopped"
    finally:
        call("rm", "-f", "done")
        call("rm", "-f", "never")
