"""Machines written for Vagrant and Packer: read back they are the same in what a box has, and the rest is told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st
from test_out import HERE, alike

from tinamou import late
from tinamou.convert import box
from tinamou.convert.assemble import assemble
from tinamou.convert.out import formats, vagrant
from tinamou.spec import load_spec


def boxed(machine: dict, folder) -> object:
    """The box of a machine, its disks empty files."""
    spec, place = load_spec(machine), HERE
    files = {"metadata.json": vagrant.metadata(place, spec.disk), "Vagrantfile": formats.write(spec, place, "vagrant").text}
    files |= dict.fromkeys((file for _, file in vagrant.copies(place, spec.disk)), "x")
    path = folder / "a.box"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@settings(deadline=None)
@given(
    machine=st.fixed_dictionaries(
        {
            "name": st.sampled_from(["web", "db-1"]),
            "image": st.just("/srv/a.qcow2"),
            "arch": st.sampled_from(["x86_64", "aarch64"]),
            "cpus": st.integers(1, 64),
            "memory": st.sampled_from(["512M", "3G"]),
            "net": st.just([{"forward": ["tcp:127.0.0.1:8080:80", "udp:127.0.0.1:53:53"]}]),
        },
        optional={"disk": st.just([{"path": "/srv/b.qcow2"}])},
    )
)
def test_a_box_is_read_as_it_was_written(tmp_path_factory, machine):
    path = boxed(machine, tmp_path_factory.mktemp("box"))
    back = assemble(box.read(path), {}).machine
    names = [file for _, file in vagrant.copies(HERE, load_spec(machine).disk)]
    assert [back["image"], *(one["path"] for one in back.get("disk", []))] == [str(path.resolve())] * len(names)
    there = alike({**machine, "disk": []})
    kept = {key: there[key] for key in ("name", "arch", "cpu", "memory", "net")}
    assert {key: alike({**back, "disk": []})[key] for key in kept} == kept


def test_a_word_of_ruby_or_hcl_stays_a_word():
    machine = {"image": "/srv/a.qcow2", "cpu": {"model": 'x"#{`id`}'}, "qemu_args": ["-fw_cfg", 'a,string=${env("X")}%{if}']}
    ruby = formats.write(load_spec(machine), HERE, "vagrant").text
    assert r'domain.cpu_model = "x\"\#{`id`}"' in ruby
    hcl = formats.write(load_spec(machine), HERE, "packer").text
    assert r'"a,string=$${env(\"X\")}%%{if}"' in hcl and r'"x\"#{`id`}"' in hcl


def test_what_packer_makes():
    machine = {
        "name": "web",
        "image": "/srv/a.qcow2",
        "cpus": 2,
        "boot": {"firmware": "uefi", "secure": True},
        "tpm": True,
        "disk": [{"size": "3G"}, {"path": "/srv/b.qcow2"}],
        "net": [{"type": "bridge", "bridge": "br0"}, {}],
        "seed": {"user_data": "#cloud-config\n{}\n"},
    }
    written = formats.write(load_spec(machine), HERE, "packer")
    lines = {key.strip(): value for key, _, value in (line.partition(" = ") for line in written.text.splitlines())}
    assert lines["memory"] == "512" and lines["cpus"] == "2" and lines["efi_boot"] == lines["vtpm"] == "true"
    assert (
        lines["disk_additional_size"] == '["3072M"]'
        and lines["net_bridge"] == '"br0"'
        and lines["iso_url"] == '"/srv/a.qcow2"'
    )
    assert r'"user-data" = "#cloud-config\n{}\n"' in lines["cd_content"]
    for path in ("boot.secure", "disk[1].path", "net[1]"):
        assert any(note.where == path and note.rank == "lost" for note in written.notes), path


def test_a_box_by_the_command(tmp_path):
    (tmp_path / "raw").write_bytes(os.urandom(300_000) + bytes(3 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(tmp_path / "raw"), str(tmp_path / "a.qcow2")], check=True)
    (tmp_path / "m.toml").write_text(f'name = "web"\nimage = "{tmp_path}/a.qcow2"\nmemory = "1G"\n')
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tinamou", "convert", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)

    assert run("m.toml", "--to", "vagrant").stdout.startswith('Vagrant.configure("2")')
    made = run("m.toml", "--to", "vagrant", "-o", "w.box")
    assert made.returncode == 0, made.stderr
    with tarfile.open(tmp_path / "w.box") as archive:
        assert archive.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        about = json.load(archive.extractfile("metadata.json"))
    assert about == {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}
    read = run("w.box", "--import", "--name", "back", "-o", "back.toml")
    assert read.returncode == 0, read.stderr
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    subprocess.run(["qemu-img", "compare", str(image), str(tmp_path / "a.qcow2")], check=True)
    assert 'memory = "1G"' in (tmp_path / "back.toml").read_text()
    bare = late.replace(HERE, image="")
    assert vagrant.copies(bare, ()) == []


def test_a_share_in_one_word_is_the_folder_alone_and_stays_read_only():
    machine = {"image": "/srv/a.qcow2", "share": ["/data:/mnt/d:ro"]}
    texts = {to: formats.write(load_spec(machine), HERE, to).text for to in ("libvirt", "incus", "vagrant")}
    assert '<source dir="/data" />' in texts["libvirt"] and "<readonly />" in texts["libvirt"]
    assert (
        "source: /data\n" in texts["incus"] and "path: /mnt/d\n" in texts["incus"] and "readonly: 'true'" in texts["incus"]
    )
    assert 'synced_folder "/data", "/mnt/d", type: "virtiofs", readonly: true' in texts["vagrant"]
