"""The Debian guest, built from the archive and booted in every way it offers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from guest_agent import answer

from tinamou.errors import ImageError
from tinamou.images import debian_tools
from tinamou.images.debian import Debian
from tinamou.images.gpt import Identities
from tinamou.images.resolve import resolve

OVMF = Path("/usr/share/OVMF")


def test_identities_follow_from_the_key() -> None:
    assert Identities.of("a") == Identities.of("a") != Identities.of("b")
    assert len(Identities.of("a").esp) == 9


def test_facts_say_how_it_boots() -> None:
    assert Debian("bookworm", "x86_64").facts.boots == ("bios", "uefi", "direct")
    assert Debian("bookworm", "x86_64").facts.cmdline.startswith("root=UUID=")
    assert Debian("trixie", "aarch64").facts.boots == ("uefi", "direct")


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinamou.images.packages.find_tool", lambda name: None)
    with pytest.raises(ImageError) as caught:
        debian_tools.require("amd64")
    assert "mmdebstrap" in caught.value.what
    assert "mtools" in caught.value.fix


def test_a_foreign_architecture_needs_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_tools, "require_tools", lambda *_: None)
    monkeypatch.setattr(debian_tools, "run", lambda argv: "s390x\n")
    monkeypatch.setattr(debian_tools, "_registered", lambda name: False)
    with pytest.raises(ImageError) as caught:
        debian_tools.require("arm64")
    assert "qemu-user-static" in caught.value.fix


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["direct", "bios", "uefi"])
def test_the_debian_guest_answers(way: str, tmp_path: Path) -> None:
    if os.geteuid() != 0 and not shutil.which("newuidmap"):
        pytest.skip("building needs root, or newuidmap")
    for tool in ("qemu-system-x86_64", "mmdebstrap", "mcopy", "mkfs.vfat"):
        if not shutil.which(tool) and not Path("/usr/sbin", tool).exists():
            pytest.skip(f"{tool} is not installed")
    if way == "uefi" and not (OVMF / "OVMF_CODE_4M.fd").exists():
        pytest.skip("ovmf is not installed")
    facts = resolve("debian", "x86_64")
    overlay = tmp_path / "overlay.qcow2"
    base = ["-b", facts.disk, "-F", facts.format]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, overlay, "12G"], check=True)
    argv = ["qemu-system-x86_64", "-machine", "q35", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-drive", f"file={overlay},if=virtio,cache=unsafe"]
    if way == "direct":
        argv += ["-kernel", facts.fast_kernel, "-initrd", facts.initrd, "-append", facts.cmdline]
    if way == "uefi":
        variables = shutil.copy(OVMF / "OVMF_VARS_4M.fd", tmp_path / "vars.fd")
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
        argv += ["-drive", f"if=pflash,format=raw,file={variables}"]
    script = "systemctl is-system-running --wait; . /etc/os-release; echo $ID; [ -d /sys/firmware/efi ] && echo efi; "
    script += "df -BG --output=size / | tail -1"
    said = answer(argv, ["/bin/sh", "-c", script], timeout=280)
    assert "running" in said.split()
    assert "debian" in said.split()
    assert ("efi" in said.split()) == (way == "uefi")
    assert said.split()[-1] == "12G"
    manifest = json.loads((Path(facts.disk).parent / "manifest.json").read_text())
    assert "cloud-init" in manifest["packages"]
