"""Guests installed from discs: answers find the installer's kernel, what was written is started, failures are shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from debian_netboot import efi_volume
from test_pure import unpacked
from typed import call, tinamou

from tinamou import late
from tinamou.errors import ImageError, SpecError
from tinamou.images import cpio
from tinamou.images.installer import Start, kind_of, prepared
from tinamou.images.resolve import resolve
from tinamou.machine.installing import answered, from_disk, last_said
from tinamou.parts.boot import BootSpec
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.seed import SeedSpec
from tinamou.parts.windows_spec import WindowsSpec
from tinamou.spec import MachineSpec
from tinamou.system.iso import build_iso

PRESEED = b"d-i debian-installer/locale string en_US\n"

UNATTENDED = b'<?xml version="1.0"?><unattend xmlns="urn:schemas-microsoft-com:unattend"/>'
COMBUSTION = b"#!/bin/bash\n# combustion: network\nsystemctl enable sshd\n"
SPEC = MachineSpec(image="disc.iso", disk=(DiskSpec(size=1 << 30),))

INIT = b"""#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for one in virtio_pci virtio_blk; do modprobe $one; done
for wait in 1 2 3 4 5 6 7 8 9; do [ -b /dev/vda ] || sleep 1; done
grep -q locale /preseed.cfg || { echo 'no answers'; poweroff -f; }
[ -d /sys/firmware/efi ] && echo 'by uefi' || echo 'by bios'
echo 'writing the disk'
dd if=/payload of=/dev/vda bs=1M && sync && reboot -f
"""


def test_answers_are_known_by_their_lines():
    assert kind_of(PRESEED) == "preseed"
    assert kind_of(b"text\nrootpw --lock\n%packages\n%end\n") == "kickstart"
    assert kind_of(b"#cloud-config\nautoinstall:\n  version: 1\n") == "autoinstall"
    assert kind_of(UNATTENDED) == kind_of(UNATTENDED.decode().encode("utf-16")) == "autounattend"
    assert kind_of(b'{"ignition": {"version": "3.3.0"}}') == "ignition"
    assert kind_of(COMBUSTION) == "combustion"
    for none in (b"hello\n", b"#!/bin/sh\necho hello\n", b"#cloud-config\nusers: []\n"):
        with pytest.raises(ImageError, match="no installer"):
            kind_of(none)


def test_a_disc_gives_kernel_and_initrd(tmp_path):
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"install.amd/vmlinuz": b"K" * 5000, "install.amd/initrd.gz": b"R" * 4999, "x": "y"})
    start = prepared(disc, PRESEED, tmp_path)
    assert Path(start.kernel).read_bytes() == b"K" * 5000
    assert Path(start.initrd).read_bytes() == b"R" * 4999 + b"\0" + cpio.archive({"preseed.cfg": cpio.file(PRESEED)})
    assert "file=/preseed.cfg" in start.cmdline
    assert not (start.user_data or start.disc or start.ignition or start.combustion)
    for answers in (b"%packages\n", b"autoinstall:\n"):
        with pytest.raises(ImageError, match="no disc of an installer"):
            prepared(disc, answers, tmp_path)
    (tmp_path / "bad.iso").write_bytes(b"\0" * 70000)
    with pytest.raises(ImageError, match="cannot be read as a disc"):
        prepared(tmp_path / "bad.iso", PRESEED, tmp_path)


def test_the_installer_is_started_by_the_firmware_its_guest_will_have(tmp_path):
    start = Start("kernel", "initrd", "file=/preseed.cfg")
    later = BootSpec("uefi", order="disk1,disk0")
    first, then = answered(late.replace(SPEC, boot=later), start, uefi=True)
    assert first.boot == BootSpec("uefi", kernel="kernel", initrd="initrd", cmdline="file=/preseed.cfg")
    assert then.boot == from_disk(first, first, then).boot == later
    first, then = answered(SPEC, start, uefi=False)
    assert (first.boot.firmware, first.boot.kernel, then) == ("direct", "kernel", SPEC)
    with pytest.raises(SpecError, match="leave Secure Boot out"):
        answered(late.replace(SPEC, boot=BootSpec(secure=True)), start, uefi=True)


def test_what_is_told_of_a_console_is_its_last_line_as_it_stands():
    loading = "Retrieving base  ... 0%... 10%... 20%"
    assert last_said(f"[    9.5] Run /init\n{loading}\n") == "Retrieving base... 20%"
    assert last_said("\x1b[2J\x1b[1;1HSelect a language\x1b[0m\r\n\x07") == "Select a language"
    assert last_said("10% of it, and 5% more\n") == "10% of it, and 5% more"
    assert last_said("x" * 200) == "x" * 100
    choices = "  1: Retry [*],  2: Change mirror,      3: Cancel,    \nPrompt: '?' for help, default=1> "
    asked = "it waits for an answer on its console: "
    assert last_said(f"10%\nDownloading a file failed:\n{choices}") == f"{asked}Downloading a file failed:"
    assert last_said("The mirror is no good.\n[Press enter to continue]") == f"{asked}The mirror is no good."
    assert last_said(f"Downloading a file failed:\n{choices}1\nRetrieving base ... 10%") == "Retrieving base ... 10%"
    assert last_said(" \n\x1b[0m") == ""


def test_ubuntu_is_started_by_its_kernel_and_answered_by_a_seed(tmp_path):
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"casper/vmlinuz": b"K", "casper/initrd": b"RRRR"})
    start = prepared(disc, b"autoinstall:\n  version: 1\n", tmp_path)
    first, then = answered(SPEC, start, uefi=False)
    assert (first.boot.cmdline, Path(first.boot.initrd).read_bytes()) == ("autoinstall", b"RRRR")
    assert first.seed == SeedSpec(user_data="#cloud-config\nautoinstall:\n  version: 1\n", agent="none")
    assert then == SPEC
    assert from_disk(first, first, then).seed == SPEC.seed  # what is installed is not answered again
    with pytest.raises(ImageError, match="no text"):
        prepared(disc, b"autoinstall:\n  identity: {hostname: \xe9}\n", tmp_path)


def test_windows_is_answered_by_a_disc_beside_its_own(tmp_path):
    start = prepared(tmp_path / "windows.iso", UNATTENDED, tmp_path)
    spec = late.replace(SPEC, os="windows-11")
    first, then = answered(spec, start, uefi=False)
    assert then == spec
    assert first.disk == (*spec.disk, DiskSpec(path=start.disc, interface="cdrom"))
    added = DiskSpec(size=1 << 20)  # by somebody, meanwhile
    assert from_disk(late.replace(first, disk=(*first.disk, added)), first, then).disk == (*spec.disk, added)
    with pytest.raises(SpecError, match="Windows") as refused:
        answered(SPEC, start, uefi=False)
    assert [one.path for one in refused.value.problems] == ["os"]
    with pytest.raises(SpecError, match="answers already"):
        answered(late.replace(spec, windows=WindowsSpec(user="a", password_file="p")), start, uefi=False)


def test_what_is_installed_reads_its_first_boot_from_the_firmware(tmp_path):
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"x": "y"})
    first, then = answered(SPEC, prepared(disc, COMBUSTION, tmp_path), uefi=False)
    assert first == then == late.replace(SPEC, seed=SeedSpec(combustion=COMBUSTION.decode()))
    ignition = b'{"ignition": {"version": "3.3.0"}}'
    first, then = answered(SPEC, prepared(disc, ignition, tmp_path), uefi=False)
    assert first == then == late.replace(SPEC, seed=SeedSpec(ignition=ignition.decode()))
    coreos = tmp_path / "coreos.iso"
    build_iso(coreos, "DISC", {"images/pxeboot/vmlinuz": b"K", "images/pxeboot/rootfs.img": b"R"})
    with pytest.raises(ImageError, match="Fedora CoreOS") as refused:
        prepared(coreos, ignition, tmp_path)
    assert "--dest-ignition" in refused.value.fix


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
    efi_volume(folder / "tree" / "efi.img", folder / "tree" / "boot.bin")  # nor does the one for UEFI: the kernel is taken
    words = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]
    words += ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"]
    subprocess.run([*words, "-o", folder / "debian.iso", folder / "tree"], check=True, capture_output=True)
    return folder / "debian.iso"


@pytest.mark.vm
def test_what_is_not_installable_is_refused(tmp_path):
    (tmp_path / "a.cfg").write_bytes(PRESEED)
    disc = tmp_path / "disc.iso"
    build_iso(disc, "DISC", {"a": "b"})
    refused = call("install", str(disc), "--name", "n", "--answers", str(tmp_path / "a.cfg"))
    assert (refused.returncode, "none to install to" in refused.stderr) == (110, True)
    refused = call("install", str(disc), "--name", "n", "--disk", "10G")
    assert "a new, empty disk is size=10G" in refused.stderr
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
        assert "by bios" in (log := (state / "machines" / "done" / "serial.log").read_text())
        assert "writing the disk" in log
        assert "kernel" not in shown["spec"].get("boot", {})
        failed = call(*words, "--name", "never", *more, "--until", "no such words", "--timeout", "150")
        assert failed.returncode == 116, failed.stderr
        assert "GNU GRUB" in failed.stderr
        assert unpacked((state / "machines" / "never" / "last-screen.png").read_bytes())[:2] == (720, 400)
        assert json.loads(tinamou("show", "never", "--json"))["state"] == "stopped"
    finally:
        call("rm", "-f", "done")
        call("rm", "-f", "never")


@pytest.mark.vm
@pytest.mark.slow
def test_under_uefi_the_installer_finds_uefi_and_so_does_what_it_installed(installer, tmp_path, state):
    (tmp_path / "answers").write_bytes(PRESEED)
    words = ("install", str(installer), "--memory", "512M", "--net", "none", "--disk", "size=64M", "--firmware", "uefi")
    try:  # the image it writes has no loader for UEFI: the firmware's own shell comes
        more = ("--answers", str(tmp_path / "answers"), "--until", "Shell>", "--timeout", "400")
        assert tinamou(*words, "--name", "done", *more) == "done\n"
        assert "by uefi" in (state / "machines" / "done" / "serial.log").read_text()
        assert json.loads(tinamou("show", "done", "--json"))["spec"]["boot"]["firmware"] == "uefi"
    finally:
        call("rm", "-f", "done")


KEY_FIRST = bytes.fromhex("fa31c08ed88ed0bc007cfbbe297cac08c07409b40ebb0700cd10ebf230e4cd16baf90cb006eef4ebfd")
"""A boot sector that prints what is behind it, waits for a key, and resets the machine."""


@pytest.mark.vm
@pytest.mark.slow
def test_a_disc_that_wants_a_key_is_given_one(tmp_path):
    (tmp_path / "tree").mkdir()
    words = KEY_FIRST + b"Press any key to boot from CD or DVD....." + bytes(1)
    (tmp_path / "tree" / "boot.bin").write_bytes(words.ljust(2048, b"\0"))
    disc = tmp_path / "disc.iso"
    made = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]
    subprocess.run([*made, "-o", disc, tmp_path / "tree"], check=True, capture_output=True)
    words = (
        "--firmware",
        "bios",
        "--net",
        "none",
        "--disk",
        "size=64M",
        "--until",
        "No bootable device",
        "--timeout",
        "200",
    )
    try:
        assert tinamou("install", str(disc), "--name", "keyed", *words) == "keyed\n"
    finally:
        call("rm", "-f", "keyed")
