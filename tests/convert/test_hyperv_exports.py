"""Machines of Hyper-V: as XML, as .vmcx, and imported from an export's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_vhdx_logs as logs
import pytest
from made_vmcx import MACHINE, made
from reading import converted, said

from tinamou.convert import hyperv, vmcx
from tinamou.errors import SpecError
from tinamou.machine import inward

CORPUS = Path(__file__).parent / "corpus"


def test_a_machine_of_generation_2():
    result = converted((CORPUS / "second.hyperv").read_text())
    assert result.source == "a Hyper-V machine" and result.machine["name"] == "web-1"
    assert result.machine["image"] == "Virtual Hard Disks/web.vhdx" and result.machine["memory"] == {"size": "2G"}
    assert result.machine["disk"] == [{"path": "tools.iso", "interface": "cdrom"}]
    assert result.machine["cpu"] == {"count": 4} and result.machine["limits"] == {"cpu": 2.0}
    assert result.machine["boot"] == {"firmware": "uefi", "secure": True} and result.machine["tpm"] == {"enabled": True}
    assert result.machine["net"] == [{"mac": "00:15:5d:01:02:03"}]
    assert said(result, "PHYSICAL", "disk2", rank="lost") and said(result, "office", rank="check")


def test_a_store_is_read_as_it_was_written():
    assert vmcx.tables(made(MACHINE)) == MACHINE
    draft = hyperv.read_store(made(MACHINE))
    assert draft.machine["boot"]["firmware"] == "uefi" and draft.disks[0].file == "Virtual Hard Disks/a.vhdx"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (made(MACHINE, waiting=3), "not shut down"),
        (made({"other": {}}), "no machine of Hyper-V"),
        (made(MACHINE)[:0x2100], "damaged"),
        (made(MACHINE)[:0x4010], "damaged"),
        (made(MACHINE).replace((0x400).to_bytes(4, "little"), (0x500).to_bytes(4, "little")), "version 0x500"),
        (b"\x14\x20\x28\x01" + bytes(40), "damaged"),
    ],
)
def test_a_store_that_is_none(data, words):
    with pytest.raises(SpecError, match=words):
        hyperv.read_store(data)


def test_a_checkpoints_layer_is_told():
    text = (CORPUS / "second.hyperv").read_text().replace("web.vhdx", "web_1.avhdx")
    assert said(converted(text), "web_1.avhdx", "Merge-VHD", rank="check")


def test_an_export_is_imported(tmp_path):
    disks, settings = tmp_path / "Web" / "Virtual Hard Disks", tmp_path / "Web" / "Virtual Machines"
    for one in (disks, settings):
        one.mkdir(parents=True)
    (tmp_path / "raw").write_bytes(os.urandom(300_000) + bytes(3 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "vhdx", str(tmp_path / "raw"), str(disks / "a.vhdx")], check=True)
    (settings / "1.vmcx").write_bytes(made(MACHINE))
    assert inward.of_file(settings / "1.vmcx").machine["image"] == str(disks / "a.vhdx")
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}
    words = ["convert", str(settings / "1.vmcx"), "--import", "-o", str(tmp_path / "web.toml")]
    done = subprocess.run([sys.executable, "-m", "tinamou", *words], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    subprocess.run(["qemu-img", "compare", str(image), str(disks / "a.vhdx")], check=True)


def test_a_disk_that_was_not_closed(tmp_path):
    """What its log alone has is in the image; without --import it is said."""
    disks, settings = tmp_path / "Web" / "Virtual Hard Disks", tmp_path / "Web" / "Virtual Machines"
    for one in (disks, settings):
        one.mkdir(parents=True)
    disk, whole = disks / "a.vhdx", tmp_path / "whole.vhdx"
    (tmp_path / "raw").write_bytes(os.urandom(300_000) + bytes(3 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "vhdx", str(tmp_path / "raw"), str(whole)], check=True)
    disk.write_bytes(whole.read_bytes())
    at = 8 << 20  # its first block, in files that qemu-img makes
    word = b"log alone" * 455 + b"."
    with whole.open("r+b") as file:
        file.seek(at)
        file.write(word)
    logs.put(disk, [(0, logs.entry(5, 0, disk.stat().st_size, [(at, word)]))])
    (settings / "1.vmcx").write_bytes(made(MACHINE))
    assert said(inward.of_file(settings / "1.vmcx"), "a.vhdx", "was not closed", rank="check")
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}
    words = ["convert", str(settings / "1.vmcx"), "--import", "-o", str(tmp_path / "web.toml")]
    done = subprocess.run([sys.executable, "-m", "tinamou", *words], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    subprocess.run(["qemu-img", "compare", str(image), str(whole)], check=True)
