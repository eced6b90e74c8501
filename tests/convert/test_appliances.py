"""Machines of VMware and VirtualBox, OVF descriptions, quickemu configurations."""

from __future__ import annotations

import pytest
from appliances import ovf, vbox, vmx
from reading import converted, planned, said

from tinamou.errors import ImageError, SpecError


def test_a_machine_of_vmware():
    result = converted(vmx(more='nvme0:0.present = "TRUE"\nnvme0:0.fileName = "d.vmdk"\nfirmware = "efi"'))
    assert result.machine["name"] == "web-server"
    assert result.machine["image"] == "web.vmdk"
    assert result.machine["memory"] == {"size": "2G"}
    assert result.machine["cpu"] == {"count": 4, "cores": 2, "sockets": 2}
    assert result.machine["boot"] == {"firmware": "uefi"}
    assert result.machine["disk"] == [{"path": "d.vmdk", "interface": "nvme"}]
    assert result.machine["net"] == [{"mac": "00:0c:29:aa:bb:cc"}]
    assert said(result, "pvscsi", "virtio", rank="changed")
    planned(result)


def test_what_vmware_has_and_tinamou_has_not():
    more = [
        'sound.present = "TRUE"',
        'sharedFolder0.present = "TRUE"',
        'sharedFolder0.hostPath = "/home/me"',
        'pciPassthru0.present = "TRUE"',
        'strange.key = "7"',
        'ethernet1.present = "TRUE"',
        'ethernet1.connectionType = "hostonly"',
        'ethernet2.present = "FALSE"',
        'sata0:1.present = "TRUE"',
        'sata0:1.deviceType = "cdrom-raw"',
        'sata0:1.fileName = "auto detect"',
    ]
    result = converted(vmx(more="\n".join(more)))
    assert [net.get("network") for net in result.machine["net"]] == [None, "internal"]
    assert "share" not in result.machine
    assert said(result, "/home/me", rank="lost") and result.machine["devices"]["sound"] == "hda"
    assert said(result, "pcipassthru0", rank="lost")
    assert said(result, "strange.key 7", rank="check")
    assert said(result, "sata0:1", rank="done")


def test_a_windows_of_vmware():
    result = converted(vmx(guest="windows11-64"))
    assert result.machine["net"][0]["model"] == "e1000"
    assert (result.machine["os"], result.machine["boot"]["firmware"]) == ("windows-11", "bios")
    assert said(result, "SATA port", rank="changed")
    old = converted(vmx(guest="windows7-64"))
    assert "os" not in old.machine and said(old, "viostor", rank="check")
    for guest, release in (
        ("windows9-64", "10"),
        ("windows2019srvnext-64", "server-2022"),
        ("windows2022srvNext-64", "server-2025"),
    ):
        assert converted(vmx(guest=guest)).machine["os"] == f"windows-{release}"


def test_an_encrypted_one_is_refused():
    with pytest.raises(SpecError, match="encrypted"):
        converted(vmx(more='encryption.keySafe = "vmware:key/list/x"'))


def test_an_ovf():
    result = converted(ovf(more='<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'))
    assert result.machine["name"] == "greeter"
    assert result.machine["cpu"] == {"count": 2}
    assert result.machine["memory"] == {"size": "256M"}
    assert result.machine["boot"] == {"firmware": "uefi"}
    assert result.machine["image"] == "disk1.vmdk"
    assert result.machine["disk"] == [{"size": "64M"}]
    assert result.machine["net"] == [{}]
    assert said(result, "floppy", rank="lost") and said(result, "VmxNet3", rank="changed")
    planned(result)


def test_properties_and_second_machines():
    property = "<ProductSection><Info/><Property ovf:key='password' ovf:type='string'/></ProductSection>"
    text = ovf().replace("<VirtualHardwareSection>", f"{property}<VirtualHardwareSection>")
    text = text.replace("</Envelope>", "<VirtualSystem ovf:id='second'><Info/></VirtualSystem></Envelope>")
    result = converted(text)
    assert said(result, "password", "[seed]", rank="lost")
    assert said(result, "second", rank="lost")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ovf(attributes='ovf:compression="gzip"'), "compressed"),
        (ovf(attributes='ovf:chunkSize="100"'), "pieces"),
        (ovf().replace('ovf:fileRef="file1"', 'ovf:fileRef="file1" ovf:parentRef="p"'), "another disk"),
    ],
)
def test_disks_of_an_ovf_that_are_no_whole_file(text, words):
    with pytest.raises(ImageError, match=words):
        converted(text)


def test_a_machine_of_virtualbox():
    result = converted(vbox())
    assert result.machine["name"] == "box-1"
    assert result.machine["image"] == "box.vdi"
    assert result.machine["cpu"] == {"count": 2}
    assert result.machine["limits"] == {"cpu": 1.0}
    assert result.machine["boot"] == {"firmware": "uefi"}
    assert result.machine["disk"] == [{"path": "install.iso", "interface": "cdrom"}]
    assert result.machine["net"] == [
        {"mac": "08:00:27:aa:bb:cc", "forward": ["tcp:127.0.0.1:2222:22"]},
        {"type": "bridge", "network": "lab", "isolated": True, "mac": "08:00:27:aa:bb:cd"},
    ]
    assert result.machine["devices"]["sound"] == "hda" and said(result, "/home/me", rank="lost")
    planned(result)


def test_a_layer_of_a_snapshot_and_a_medium_nobody_knows():
    assert said(converted(vbox(attached="cccc")), "Snapshots/c.vdi", "clonemedium", rank="lost")
    assert said(converted(vbox(attached="eeee")), "list of media", rank="lost")


def test_an_encrypted_machine_of_virtualbox():
    with pytest.raises(SpecError, match="encrypted"):
        converted('<VirtualBox xmlns="http://www.virtualbox.org/"><MachineEncrypted/></VirtualBox>')


def test_quickemu():
    text = 'guest_os="linux"\ndisk_img="u/disk.qcow2"\ndisk_size="20G"\niso="u/u.iso"\nram="4G"\n'
    result = converted(
        text + 'port_forwards=("8080:80" "2222:22")\nextra_args="-foo"\nusb_controller="xhci"\nif true; then\n'
    )
    assert (result.machine["image"], result.machine["disk"]) == ("u/disk.qcow2", [{"path": "u/u.iso", "interface": "cdrom"}])
    assert said(result, "disk_size 20G", "never made unasked", rank="changed")
    assert result.machine["boot"]["firmware"] == "uefi"
    assert result.machine["memory"] == {"size": "4G"}
    assert result.machine["net"] == [{"forward": ["tcp:127.0.0.1:8080:80", "tcp:127.0.0.1:2222:22"]}]
    assert said(result, "usb_controller", rank="lost") and said(result, "true", "nothing is run", rank="lost")


def test_quickemu_is_a_shell_text():
    text = 'guest_os=linux\nD="$HOME/vm"\ndisk_img="$D/d.qcow2"\niso="${VMDIR}/i.iso"\nextra_args="-name \'a b\'"\n'
    result = converted(text + 'network="none"\nram=1G\n')
    assert result.machine["image"] == "~/vm/d.qcow2"
    assert result.machine["disk"][0]["path"] == "~/vm/i.iso"
    assert result.machine["qemu_args"] == ["-name", "a b"]
    assert result.machine["net"] == []
    assert converted("guest_os=linux\nnetwork=restrict\n").machine["net"] == [{"isolated": True}]
    assert converted("guest_os=linux\nnetwork=br0\n").machine["net"] == [{"type": "bridge", "bridge": "br0"}]


@pytest.mark.parametrize("text", ["", "hello", "<html></html>", "<a", "{}", "key = value", "\0\0"])
def test_what_is_none_of_them(text):
    with pytest.raises(SpecError):
        converted(text)
