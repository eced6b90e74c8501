"""``tinamou convert``: what it prints is a machine file, what it says goes to stderr, and what comes out starts."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from appliances import as_vmdk, ova, vbox, vmx
from greeting import GREETING, greeting_disk
from typed import call, eventually

from tinamou.spec import load_spec

pytestmark = pytest.mark.usefixtures("own_images")

LINE = [
    "qemu-system-x86_64",
    "-smp",
    "2,sockets=1,cores=2,threads=1",
    "-device",
    "qemu64,x2apic=on",
    "-numa",
    "node,cpus=0-1,nodeid=0",
    "-m",
    "256",
    "-net",
    "nic,model=e1000",
    "-net",
    "user",
    "-nographic",
]


def greets(file: Path, name: str) -> None:
    """The machine of the file starts, and its boot sector says what it says."""
    done = call("run", str(file), "-d")
    try:
        assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
        eventually(lambda: GREETING in call("logs", name).stdout, "the boot sector's greeting")
    finally:
        call("rm", "-f", name)


def test_the_file_on_stdout_and_the_notes_on_stderr():
    done = call("convert", "--", *LINE)
    assert done.returncode == 0, done.stderr
    assert load_spec(tomllib.loads(done.stdout)).cpu.cores == 2
    ranks = [line.split()[0] for line in done.stderr.splitlines()]
    assert ranks == sorted(ranks, key=["lost", "check", "changed", "done"].index)
    assert "-device qemu64,x2apic=on" in done.stderr


def test_json():
    done = call("convert", "--json", "--", *LINE)
    data = json.loads(done.stdout)
    assert data["machine"]["memory"] == {"size": "256M"}
    assert {note["rank"] for note in data["notes"]} >= {"check", "changed", "done"}
    assert all(note["where"] and note["reason"] for note in data["notes"])


def test_a_file_is_not_overwritten_unasked(tmp_path):
    target = tmp_path / "web.toml"
    assert call("convert", "-o", str(target), "--name", "web", "--", *LINE).returncode == 0
    assert tomllib.loads(target.read_text())["name"] == "web"
    refused = call("convert", "-o", str(target), "--", *LINE)
    assert refused.returncode == 118 and "--force" in refused.stderr
    assert "name" in tomllib.loads(target.read_text())
    assert call("convert", "--force", "-o", str(target), "--", *LINE).returncode == 0
    assert "name" not in tomllib.loads(target.read_text())


def test_one_source(tmp_path):
    assert call("convert").returncode == 110
    assert call("convert", "a.sh", "--", *LINE).returncode == 110
    assert call("convert", str(tmp_path / "none.xml")).returncode == 110


def test_what_comes_out_plans_here(tmp_path):
    """A script beside its disk: the machine file can lie elsewhere."""
    greeting_disk(tmp_path / "disk.img")
    (tmp_path / "start").write_text("qemu-system-x86_64 -m 128 \\\n  -drive file=disk.img,format=raw -nographic\n")
    file = tmp_path / "out" / "m.toml"
    file.parent.mkdir()
    assert call("convert", str(tmp_path / "start"), "-o", str(file)).returncode == 0
    assert tomllib.loads(file.read_text())["image"] == str(tmp_path / "disk.img")
    planned = call("plan", str(file))
    assert planned.returncode == 0, planned.stderr


def test_what_is_missing_on_this_host_is_said():
    done = call("convert", "--", *LINE, "-nic", "bridge,br=nosuch0")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if line.startswith("check") and "nosuch0: on this host" in line]
    assert "on this host" not in call("convert", "--", *LINE).stderr


@pytest.mark.vm
def test_a_machine_of_virtualbox_is_imported(tmp_path):
    raw = greeting_disk(tmp_path / "d.img")
    subprocess.run(["qemu-img", "convert", "-O", "vdi", str(raw), str(tmp_path / "box.vdi")], check=True)
    (tmp_path / "box.vbox").write_text(vbox().replace('type="EFI"', 'type="BIOS"'))
    file = tmp_path / "box.toml"
    done = call("convert", str(tmp_path / "box.vbox"), "--import", "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(file.read_text())["image"] == "box-1"
    kept = json.loads(call("image", "show", "box-1", "--json").stdout)["disk"]
    same = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(raw), kept]
    assert subprocess.run(same, check=False, capture_output=True).returncode == 0


@pytest.mark.vm
def test_a_line_of_an_article_boots_and_answers(tmp_path, leftovers):
    file = tmp_path / "m.toml"
    assert call("convert", "-o", str(file), "--", *LINE).returncode == 0
    card = "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; readlink /sys/class/net/eth0/device/driver"
    done = call("run", str(file), "--time-limit", "600", "--", "sh", "-c", f"nproc; {card}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "2" and done.stdout.rstrip().endswith("virtio_net")
    assert leftovers.found() == []


@pytest.mark.vm
def test_a_machine_of_vmware_starts(tmp_path, leftovers):
    as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "web.vmdk", "monolithicSparse")
    (tmp_path / "web.vmx").write_text(vmx().replace('"2048"', '"128"').replace('numvcpus = "4"', 'numvcpus = "2"'))
    file = tmp_path / "web.toml"
    done = call("convert", str(tmp_path / "web.vmx"), "--import", "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(file.read_text())["image"] == "web-server"
    (tmp_path / "web.vmdk").unlink()
    greets(file, "web-server")
    assert leftovers.found() == []


@pytest.mark.vm
def test_an_ova_starts(tmp_path, leftovers, monkeypatch):
    """Its second disk is a new one; nothing of the archive is needed any more once it is imported."""
    disk = as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "d.vmdk")
    archive = ova(tmp_path / "greeter, one.ova", disk)
    inside = call("convert", str(archive))
    assert inside.returncode == 110 and "--import" in inside.stderr
    file = tmp_path / "greeter.toml"
    done = call("convert", str(archive), "--import", "-o", str(file))
    assert done.returncode == 0, done.stderr
    machine = tomllib.loads(file.read_text())
    assert (machine["image"], machine["disk"]) == ("greeter", [{"size": "64M"}])
    archive.unlink()
    greets(file, "greeter")
    assert leftovers.found() == []


def test_other_disks_are_copied_beside_the_file(tmp_path):
    as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "web.vmdk", "monolithicSparse")
    as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "data.vmdk", "monolithicSparse")
    more = 'scsi0:1.present = "TRUE"\nscsi0:1.fileName = "data.vmdk"'
    (tmp_path / "web.vmx").write_text(vmx(more=more))
    file = tmp_path / "out" / "web.toml"
    file.parent.mkdir()
    assert call("convert", str(tmp_path / "web.vmx"), "--import", "-o", str(file)).returncode == 0
    [data] = tomllib.loads(file.read_text())["disk"]
    assert data == {"path": str(file.parent / "web-server-disk1.qcow2")}
    same = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(tmp_path / "d.img"), data["path"]]
    assert subprocess.run(same, check=False, capture_output=True).returncode == 0
    again = call("convert", str(tmp_path / "web.vmx"), "--import", "--force", "-o", str(file))
    assert again.returncode == 118 and data["path"] in again.stderr
