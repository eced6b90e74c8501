"""Backups of Proxmox: the machine in them, their disks block by block, and what is damaged, cut short or not theirs."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from made_backups import CLUSTER, vma
from reading import said

from tinamou.convert import vma as reader
from tinamou.errors import ImageError, SpecError
from tinamou.machine import inward
from tinamou.system import codecs
from tinamou.system.exec import find_tool

CONF = """boot: order=scsi0
cores: 2
memory: 1024
name: saved
net0: virtio=BC:24:11:9C:7D:0B,bridge=vmbr0
ostype: l26
scsi0: local-lvm:vm-100-disk-0,size=1M
scsi1: local-lvm:vm-100-disk-1,size=1M,backup=0
virtio0: local:100/x.raw,size=1M
scsihw: virtio-scsi-single
#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:
#qmdump#map:virtio0:drive-virtio0:local:raw:
"""


def noise(size: int, seed: int) -> bytes:
    """Content with holes in it, and a last cluster that is not whole."""
    some = random.Random(seed)
    return b"".join(some.choice([some.randbytes(4096), bytes(4096)]) for _ in range(-(-size // 4096)))[:size]


DISKS = {
    "drive-scsi0": noise(5 * CLUSTER + 512 * 5, 1),
    "drive-virtio0": noise(90 * CLUSTER, 2),
    "drive-extra": bytes(CLUSTER),
}


def packed(data: bytes, kind: str) -> bytes:
    if kind == "gz":
        return gzip.compress(data)
    return codecs._zstandard().compress(data) if kind == "zst" else data


@pytest.fixture(params=["", "gz", "zst"])
def backup(request, tmp_path) -> Path:
    path = tmp_path / f"vzdump.vma{'.' * bool(request.param)}{request.param}"
    path.write_bytes(packed(vma(CONF, DISKS), request.param))
    return path


def test_the_machine_in_it(backup):
    made = inward.of_file(backup)
    assert (made.machine["name"], made.machine["memory"]) == ("saved", {"size": "1G"})
    assert [(one.field, one.disk.member) for one in made.disks] == [
        ("image", "drive-scsi0"),
        ("disk[0].path", "drive-virtio0"),
    ]
    assert said(made, "scsi1", "not in the backup", rank="lost")


def test_its_disks_are_as_they_were(backup, tmp_path):
    (tmp_path / "out").mkdir()
    found = reader.unpack(backup, tmp_path / "out", {"drive-scsi0", "drive-virtio0"})
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(DISKS[name]).digest()
        assert path.stat().st_blocks * 512 < len(DISKS[name])  # zeros are holes


def test_what_is_damaged_is_refused(tmp_path):
    whole = vma(CONF, DISKS)
    path = tmp_path / "b.vma"
    header = 12288 + 900
    places = {"checksum": [40, 12290, 5000], "extent": [whole.index(b"VMAE") + 60]}
    for what, spots in places.items():
        for at in spots:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises((ImageError, SpecError), match=r"damaged|no backup"):
                (tmp_path / f"{what}{at}").mkdir()
                reader.unpack(path, tmp_path / f"{what}{at}", set(DISKS))
    last = whole.rindex(b"VMAE")
    for end, why in ((last, "cut short"), (len(whole) - 5, "damaged"), (header, "damaged"), (100, "damaged")):
        path.write_bytes(whole[:end])
        (tmp_path / f"o{end}").mkdir()
        with pytest.raises(ImageError, match=why):
            reader.unpack(path, tmp_path / f"o{end}", set(DISKS))


def test_lzo_names_its_tool_where_it_is_not_here(tmp_path, monkeypatch):
    path = tmp_path / "a.vma.lzo"
    path.write_bytes(b"\x89LZO\0\r\n\x1a\n")
    monkeypatch.setattr(reader, "find_tool", lambda name: None)
    with pytest.raises(SpecError, match="install lzop"):
        inward.of_file(path)


@pytest.mark.skipif(find_tool("lzop") is None, reason="lzop is not here (script/packages run)")
def test_lzo_by_its_tool(tmp_path):
    (tmp_path / "b.vma").write_bytes(vma(CONF, DISKS))
    subprocess.run(["lzop", "-q", str(tmp_path / "b.vma")], check=True)
    packed = tmp_path / "b.vma.lzo"
    plain = repr(inward.of_file(tmp_path / "b.vma").machine)
    assert repr(inward.of_file(packed).machine) == plain.replace("b.vma", "b.vma.lzo")
    (tmp_path / "out").mkdir()
    found = reader.unpack(packed, tmp_path / "out", set(DISKS))
    assert {name: file.read_bytes() for name, file in found.items()} == DISKS
    whole = packed.read_bytes()
    for number, data in enumerate((whole[: len(whole) // 2], whole[:-300] + bytes(40) + whole[-260:])):
        packed.write_bytes(data)
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ImageError, match=r"damaged|cut short"):
            reader.unpack(packed, tmp_path / str(number), set(DISKS))


def test_imported_its_disks_are_the_machines(tmp_path):
    """By the command, as it is used; the folder it was unpacked in is gone."""
    (tmp_path / "b.vma").write_bytes(vma(CONF, DISKS))
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}
    command = [sys.executable, "-m", "tinamou", "convert", "b.vma", "--import", "-o", "m.toml", "--json"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    disk = Path(json.loads(run.stdout)["machine"]["disk"][0]["path"])
    raw = tmp_path / "back.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(raw)], check=True)
    assert raw.read_bytes() == DISKS["drive-virtio0"]
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(raw)], check=True)
    assert raw.read_bytes().rstrip(b"\0") == DISKS["drive-scsi0"].rstrip(b"\0")
    assert sorted(one.name for one in tmp_path.iterdir() if one.name.startswith(".unpacked")) == []
