"""USB devices of the host, and what a viewer of SPICE shares with a guest, from other tools' descriptions."""

from __future__ import annotations

import pytest
from reading import converted, line, said

from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place
from tinamou.spec import load_spec

DEVICES = "<devices>{}</devices>"
DOMAIN = "<domain type='kvm'><name>m</name><memory>1048576</memory><os><type arch='x86_64'>hvm</type></os>{}</domain>"
SPICE = (
    "<graphics type='spice'>{}</graphics>"
    "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
)
HOST = "<hostdev mode='subsystem' type='usb'><source>{}</source></hostdev>"
KIND = {"type": "host", "device": "0951:1666"}


def domain(inside: str):
    return converted(DOMAIN.format(DEVICES.format(inside)))


@pytest.mark.parametrize(
    ("inside", "shared"),
    [
        ("", True),
        ("<clipboard copypaste='no'/><filetransfer enable='no'/>", False),
        ("<clipboard copypaste='yes'/><filetransfer enable='no'/>", False),
    ],
)
def test_libvirts_clipboard(inside, shared):
    found = domain(SPICE.format(inside))
    assert found.machine["display"].get("clipboard", False) is shared
    assert said(found, "channel", "spicevmc", rank="done")


def test_libvirts_redirected_devices():
    ports = (
        "<redirdev bus='usb' type='spicevmc'/>" * 2
        + "<redirdev bus='usb' type='tcp'><source host='h' service='1'/></redirdev>"
    )
    found = domain(SPICE.format("") + ports)
    assert found.machine["display"]["redirected_usb"] == 2
    assert said(found, "redirdev", "tcp", rank="lost")
    assert "redirected_usb" not in domain("<graphics type='vnc'/>" + ports).machine["display"]


def test_libvirts_devices_of_the_host():
    found = domain(HOST.format("<vendor id='0x951'/><product id='0x1666'/>"))
    assert found.machine["usb"] == [KIND]
    numbered = domain(HOST.format("<address bus='1' device='7'/>"))
    assert "usb" not in numbered.machine
    assert "changes each time it is plugged in" in str(numbered.notes)


def test_other_tools():
    words = "qemu-system-x86_64 -m 512 -device qemu-xhci -device usb-host,vendorid=0x0951,productid=0x1666"
    assert line(f"{words} -device usb-host,hostbus=1,hostport=2.3").machine["usb"] == [
        KIND,
        {"type": "host", "device": "1-2.3"},
    ]
    assert "usb" not in line("qemu-system-x86_64 -m 512 -device usb-host,hostbus=1,hostaddr=7").machine
    quickemu = 'guest_os="linux"\ndisk_img="d.qcow2"\nusb_devices=("0951:1666" "1050:0407")\n'
    assert converted(quickemu).machine["usb"] == [KIND, {"type": "host", "device": "1050:0407"}]
    proxmox = (
        "cores: 1\nmemory: 512\nname: m\nscsi0: local-lvm:vm-1-disk-0,size=4G\nusb0: host=0951:1666,usb3=1\nusb1: spice\n"
    )
    found = converted(proxmox).machine
    assert found["usb"] == [KIND]
    assert found["display"] == {"type": "spice", "redirected_usb": 1}


@pytest.mark.parametrize("to", ["libvirt", "qemu", "proxmox"])
def test_written_and_read_back(to):
    """libvirt and QEMU have all of it but for a port, which libvirt does not know, and SPICE's beside a line of QEMU's."""
    usb = [KIND, *([{"type": "host", "device": "1-2.3"}] if to != "libvirt" else [])]
    screen = {"type": "spice", **({"redirected_usb": 2} if to != "qemu" else {})}
    spec = {"name": "m", "arch": "x86_64", "image": "/srv/a.qcow2", "usb": usb, "display": screen}
    written = formats.write(load_spec(spec), Place("/srv/a.qcow2", "qcow2", "x86_64", kvm=True), to)
    back = (line(written.text) if to == "qemu" else converted(written.text)).machine
    assert back["usb"] == usb, written.text
    assert back["display"] == screen, written.text
    assert not [note for note in written.notes if "usb" in str(note) and note.rank == "lost"]
