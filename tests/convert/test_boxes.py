"""Archives with a machine's disks in them: Vagrant's boxes, images of Google's cloud; read, unpacked, refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import appliances
import pytest
from reading import said

from tinamou.convert import box
from tinamou.errors import ImageError, SpecError
from tinamou.machine import inward

VAGRANTFILE = """# made by a tool
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |v|
    v.cpus = 2
    v.memory = "1024"
    v.disk_bus = "sata"
  end
end
"""
METADATA = {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}


def archive(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def disk(tmp_path) -> bytes:
    raw = tmp_path / "raw"
    raw.write_bytes(os.urandom(100_000) + bytes(400_000) + os.urandom(24_288))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(tmp_path / "q")], check=True)
    return (tmp_path / "q").read_bytes()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_box_of_libvirts(tmp_path, disk, mode):
    members = {"./metadata.json": json.dumps(METADATA).encode(), "./Vagrantfile": VAGRANTFILE.encode(), "./box.img": disk}
    made = inward.of_file(archive(tmp_path / "a.box", members, mode))
    assert made.machine["cpu"]["count"] == 2 and made.machine["memory"]["size"] == "1G"
    assert [(one.field, one.disk.member) for one in made.disks] == [("image", "box.img")]
    assert said(made, 'v.disk_bus = "sata"', rank="check")
    (tmp_path / "out").mkdir()
    [found] = box.unpack(tmp_path / "a.box", tmp_path / "out", {"box.img"}).values()
    assert found.read_bytes() == disk


def test_a_box_of_virtualboxs_and_one_of_vmwares(tmp_path):
    ovf = appliances.ovf(href="box-disk001.vmdk").encode()
    made = inward.of_file(
        archive(
            tmp_path / "v.box", {"metadata.json": b'{"provider":"virtualbox"}', "box.ovf": ovf, "box-disk001.vmdk": b"x"}
        )
    )
    assert made.source == "a Vagrant box" and made.disks[0].disk.member == "box-disk001.vmdk"
    vmx = appliances.vmx(disk="disk.vmdk").encode()
    files = {"metadata.json": b'{"provider":"vmware_desktop"}', "a.vmx": vmx, "disk.vmdk": b"x", "disk-s001.vmdk": b"y"}
    made = inward.of_file(archive(tmp_path / "w.box", files))
    assert made.machine["name"] == "web-server" and made.disks[0].disk.member == "disk.vmdk"
    (tmp_path / "out").mkdir()
    assert set(box.unpack(tmp_path / "w.box", tmp_path / "out", {"disk.vmdk"})) == {"disk.vmdk", "disk-s001.vmdk"}


def test_an_image_of_googles_is_imported_by_the_command(tmp_path):
    content = os.urandom(1 << 16) + bytes(3 << 20) + os.urandom(1 << 16)
    archive(tmp_path / "image.tar.gz", {"disk.raw": content})
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}
    command = [sys.executable, "-m", "tinamou", "convert", "image.tar.gz", "--import", "--name", "cloud", "-o", "m.toml"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(tmp_path / "back")], check=True)
    assert (tmp_path / "back").read_bytes() == content


def test_what_is_no_machine_or_not_whole_is_refused(tmp_path, disk):
    metadata = json.dumps(METADATA).encode()
    with pytest.raises(SpecError, match="without a machine"):
        inward.of_file(archive(tmp_path / "a.tar.gz", {"readme": b"x"}))
    with pytest.raises(SpecError, match="twice"):
        with tarfile.open(tmp_path / "b.box", "w:gz") as tar:
            for _ in range(2):
                tar.addfile(tarfile.TarInfo("box.img"))
        inward.of_file(tmp_path / "b.box")
    whole = archive(tmp_path / "c.box", {"metadata.json": metadata, "box.img": os.urandom(200_000)}, "w:gz").read_bytes()
    (tmp_path / "c.box").write_bytes(whole[:150_000])
    with pytest.raises(SpecError, match="damaged"):
        inward.of_file(tmp_path / "c.box")
    named = {"provider": "libvirt", "disks": [{"path": "/etc/shadow"}]}
    with pytest.raises(ImageError, match="incomplete"):
        inward.of_file(archive(tmp_path / "d.box", {"metadata.json": json.dumps(named).encode()}))


def test_a_folder_of_vmwares(tmp_path):
    folder = tmp_path / "Web.vmwarevm"
    folder.mkdir()
    (folder / "web.vmx").write_text(appliances.vmx(disk="disk.vmdk"))
    made = inward.of_file(folder)
    assert made.machine["name"] == "web-server" and made.machine["image"] == str(folder / "disk.vmdk")
    (folder / "other.vmx").write_text(appliances.vmx(disk="disk.vmdk"))
    with pytest.raises(SpecError, match=r"not the folder of one machine[\s\S]*other.vmx, web.vmx"):
        inward.of_file(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"neither config\.plist nor config\.pvs"):
        inward.of_file(tmp_path / "empty")
