"""Faults found in descriptions of others: what a tool means that leaves something out, and what is no machine at all."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest
from reading import converted, said

from tinamou.convert import kinds
from tinamou.errors import SpecError
from tinamou.machine import inward

CORPUS = Path(__file__).parent / "corpus"

VMI = """apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: a}
spec:
  domain: {devices: {%s}, resources: {}, memory: {guest: 128Mi}}
  volumes:
  - {name: root, containerDisk: {image: "registry:5000/x"}}
"""


def test_a_volume_of_kubevirt_that_no_device_names_is_a_disk_and_a_machine_without_interfaces_has_one():
    result = converted(VMI % "")
    assert result.machine["image"] == "root.qcow2" and result.machine["net"] == [{}]
    assert not said(result, "domain.resources", rank="lost") and not said(result, "domain.devices", rank="lost")
    assert converted(VMI % "autoattachPodInterface: false").machine["net"] == []
    shared = converted(VMI % "filesystems: [{name: root, virtiofs: {}}]")
    assert "image" not in shared.machine


def test_a_kubevirt_windows_keeps_the_card_it_knows():
    text = VMI.replace("memory:", "features: {hyperv: {relaxed: {}}}, memory:")
    card = "interfaces: [{name: default, masquerade: {}, model: e1000}]"
    assert converted(text % card).machine["net"] == [{"model": "e1000"}]
    assert converted(VMI % card).machine["net"] == [{}]


PROXMOX = "cores: 4\nsockets: 1\nname: a\nscsi0: local:100/x.qcow2\n"


def test_what_a_proxmox_machine_may_use_and_be():
    result = converted(PROXMOX + "vcpus: 2\ncpulimit: 1.5\naudio0: device=ich9-intel-hda,driver=spice\n")
    assert result.machine["cpu"]["count"] == 2 and result.machine["cpu"]["max"] == 4
    assert result.machine["limits"] == {"cpu": 1.5} and result.machine["devices"] == {"sound": "hda"}
    named = converted(PROXMOX + "smbios1: base64=1,manufacturer=QUNNRQ==,uuid=3fa85f64-5717-4562-b3fc-2c963f66afa6\n")
    assert named.machine["smbios"] == {"manufacturer": "ACME", "uuid": "3fa85f64-5717-4562-b3fc-2c963f66afa6"}


def test_a_sealed_proxmox_machine_with_nodes():
    sealed = converted("bios: ovmf\nefidisk0: local:100/a.raw\namd-sev: type=es,no-debug=1\n")
    assert sealed.machine["confidential"] == {"type": "sev-es"} and said(sealed, "no-debug=1", rank="check")
    assert said(converted(PROXMOX + "amd-sev: type=new\n"), "type=new", rank="lost")
    assert converted(PROXMOX.replace("sockets: 1", "sockets: 2") + "numa: 1\n").machine["cpu"]["nodes"] == 2
    assert "nodes" not in converted(PROXMOX + "numa: 1\n").machine["cpu"]


def test_a_mapping_of_a_proxmox_cluster_is_no_address():
    result = converted(PROXMOX + "hostpci0: mapping=card,pcie=1\n")
    assert "pci" not in result.machine and said(result, "mapping=card", "cluster", rank="lost")


def test_disks_of_xen_in_the_words_of_xm():
    lines = "name = 'a'\nbuilder = 'hvm'\n"
    lines += "disk = ['phy:/dev/vg/a,hda,w', 'file:/srv/win.iso,ioemu:hdc:cdrom,r', 'file:/srv/b,xvdb,r']\n"
    result = converted(lines)
    assert result.machine["image"] == "/dev/vg/a"
    there = [{"path": "/srv/win.iso", "interface": "cdrom"}, {"path": "/srv/b", "format": "raw", "readonly": True}]
    assert result.machine["disk"] == there
    assert converted("name = 'a'\ndisk = ['/srv/c,qcow2,xvda,rw']\n").machine["image"] == "/srv/c"


DOMAIN = """<domain type='kvm'><name>a</name><memory>1048576</memory><os><type arch='x86_64'>hvm</type>%s</os>
<sysinfo type='smbios'>
<system><entry name='product'>Box</entry><entry name='x-y'>z</entry></system></sysinfo><devices/></domain>
"""


def test_what_libvirt_shows_of_the_maker():
    shown = converted(DOMAIN % "<smbios mode='sysinfo'/>")
    assert shown.machine["smbios"] == {"product": "Box"} and said(shown, "x-y=z", rank="lost")
    hidden = converted(DOMAIN % "")
    assert "smbios" not in hidden.machine and said(hidden, "product=Box", rank="done")


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\nnetwork:\n  config: disabled\nconfig:\n- a\n",
        "#!/bin/sh\ncat > x <<E\nconfig:\n  a: b\ndevices:\n  root: {}\nE\n",
        '{"name": "A router", "images": [{"filename": "a.qcow2", "md5sum": "0"}]}',
        "<capabilities><guest><arch name='x'><domain type='kvm'/></arch></guest></capabilities>",
        "images:\n  docs:\n    - logo.png\n",
        "<?xml version='1.0'?><plist><dict><key>CFBundleName</key><string>a</string></dict></plist>",
        "#!/usr/bin/perl\nuse strict;\nscsi0: 1\n",
    ],
)
def test_what_is_no_machine_is_none(text):
    assert kinds.kind_of(text) == ""


def of(name: str):
    return converted((CORPUS / name).read_text())


def test_a_utm_machine():
    result = of("debian.plist")
    assert result.machine["name"] == "debian-12" and result.machine["arch"] == "aarch64"
    assert result.machine["image"] == "Data/AAAA.qcow2" and result.machine["cpu"]["model"] == "cortex-a72,+pmu"
    assert result.machine["disk"] == [{"path": "Data/data.img", "readonly": True, "interface": "nvme"}]
    first, second = result.machine["net"]
    assert first == {"mac": "52:54:00:00:00:07", "isolated": True, "forward": ["udp:127.0.0.1:8053:53"]} and second == {}
    assert result.machine["tpm"] == {"enabled": True} and result.machine["boot"] == {"firmware": "uefi"}
    assert said(result, "rom.fd", rank="lost") and said(result, "en0", rank="check")


OLD_UTM = {
    "ConfigurationVersion": 2,
    "System": {"Architecture": "x86_64", "Memory": 1024, "CPUCount": 0, "BootUefi": True, "AddArgs": ["-vga std"]},
    "Drives": [{"ImagePath": "a.qcow2", "ImageType": "disk", "InterfaceType": "ide", "DriveName": "drive0"}],
    "Networking": {"NetworkMode": "none"},
    "Display": {"ConsoleOnly": True},
}


def test_utm_before_version_4_and_its_folder(tmp_path):
    folder = tmp_path / "Old one.utm"
    folder.mkdir()
    (folder / "config.plist").write_bytes(plistlib.dumps(OLD_UTM))
    result = inward.of_file(folder)
    assert result.machine["image"] == str(folder / "Images" / "a.qcow2") and result.machine["net"] == []
    assert result.machine["cpu"]["count"] == 1 and result.machine["qemu_args"] == ["-vga", "std"]
    for changed, words in (({"Backend": "Apple"}, "Apple"), ({"System": {"Architecture": "m68k"}}, "m68k")):
        (folder / "config.plist").write_bytes(plistlib.dumps(OLD_UTM | changed))
        with pytest.raises(SpecError, match=words):
            inward.of_file(folder)
    entities = "<!DOCTYPE plist [<!ENTITY a 'b'>]><plist><dict><key>Backend</key><string>&a;</string></dict></plist>"
    with pytest.raises(SpecError, match="property list"):
        converted(entities)


def test_a_gns3_appliance():
    result = of("router.gns3a")
    assert result.machine["image"] == "router-2.qcow2" and result.machine["arch"] == "x86_64"
    assert result.machine["disk"] == [{"path": "settings.iso", "interface": "cdrom"}]
    assert result.machine["net"] == [{}, {"isolated": True}, {"isolated": True}]
    assert said(result, "router-1.qcow2", rank="changed") and said(result, "i386", rank="changed")
    with pytest.raises(SpecError, match="docker"):
        converted('{"name": "a", "registry_version": 4, "docker": {"image": "b"}}')
    new = '{"name":"a","registry_version":8,"settings":[{"template_type":"qemu","template_properties":{"ram":256}}]}'
    assert converted(new).machine["memory"] == {"size": "256M"}


def test_what_a_note_shows_is_not_told_again_and_keyboards_of_the_host_are_told():
    disk = "<disk type='file'><source file='/a'/><target dev='vda'/><serial>S1</serial></disk>"
    result = converted((DOMAIN % "").replace("<devices/>", f"<devices>{disk}</devices>"))
    assert sum("S1" in str(note) for note in result.notes) == 1
    line = converted(["qemu-system-x86_64", "-object", "input-linux,id=k,evdev=/dev/input/event3"])
    assert said(line, "event3", "keyboards", rank="lost") and not said(line, "nothing refers")
