"""libvirt domains: recorded documents, and what the libvirt and virt-install of this host write."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from reading import converted, planned, said

from bench.libvirt import Libvirt
from tinamou.errors import SpecError

DOMAINS = Path(__file__).parent / "domains"


def domain(name: str):
    return converted((DOMAINS / f"{name}.xml").read_text())


def small(inside: str, attributes: str = "type='kvm'"):
    return converted(f"<domain {attributes}><name>a</name><memory>1048576</memory>{inside}<devices/></domain>")


def test_a_server():
    result = domain("fedora-server")
    assert result.machine["name"] == "fedora-server"
    assert result.machine["image"] == "/var/lib/libvirt/images/fedora.qcow2"
    assert result.machine["cpu"] == {"count": 4, "sockets": 1, "cores": 2, "threads": 2, "pin": "8-11", "strict": True}
    assert result.machine["memory"] == {"size": "4G", "hugepages": "2M"}
    assert result.machine["boot"] == {"firmware": "uefi", "secure": True}
    assert result.machine["disk"] == [{"path": "/dev/vg/data", "format": "raw", "cache": "none", "interface": "scsi"}]
    assert [net["type"] for net in result.machine["net"]] == ["bridge", "ovs"]
    assert result.machine["share"] == [{"path": "/srv/share"}]
    assert result.machine["pci"] == ["0000:0b:00.0"]
    assert said(result, "pci 0000:0b:00.0", "given back", rank="changed")
    assert result.machine["confidential"] == {"type": "sev"}
    assert said(result, "sev", "cbitpos", rank="check")
    for words in (("rbd",), ("locked",), ("cache = none",)):
        assert said(result, *words, rank="lost"), words
    assert result.machine["devices"] == {"sound": "hda"} and said(result, "ich9", rank="done")
    assert said(result, "0.0.0.0", "everybody", rank="changed")
    assert said(result, "backingStore", "/srv/base.qcow2", rank="done")


def test_a_windows_keeps_the_card_it_knows():
    result = domain("windows")
    assert result.machine["net"] == [{"model": "e1000e", "mac": "52:54:00:0a:0b:0c", "forward": ["tcp:127.0.0.1:3389:3389"]}]
    assert result.machine["boot"] == {"firmware": "uefi", "secure": True}
    assert result.machine["image"] == "/srv/win11.qcow2"
    assert result.machine["disk"] == [{"path": "/srv/virtio-win.iso", "interface": "cdrom"}]
    assert result.machine["clock"] == {"base": "localtime"}
    shown = "relaxed,vapic,spinlocks=8191,vpindex,synic,stimer,stimer-direct,vendor-id=any,tlbflush,tlbflush-ext"
    assert result.machine["cpu"] == {"count": 2, "model": "host,+vmx", "hyperv": shown}
    assert result.machine["os"] == "windows-11" and result.machine["tpm"] == {"enabled": False}
    assert said(result, "SATA port", "windows.virtio = true", rank="changed")
    assert said(result, "nosuch", rank="lost") and said(result, "hidden", rank="changed")
    assert said(result, "2 of 8", rank="lost")


def test_a_clock_set_apart_and_what_a_windows_without_a_name_gets():
    assert small("<clock offset='variable' adjustment='-3600'/>").machine["clock"] == {"offset": -3600}
    assert said(small("<clock offset='timezone' timezone='Europe/Berlin'/>"), "Europe/Berlin", rank="lost")
    assert "clock" not in small("<clock offset='utc'/>").machine
    old = small("<metadata><os id='http://microsoft.com/win/7'/></metadata>")
    assert "os" not in old.machine and said(old, "nothing is assumed", rank="check")


def test_every_element_of_them_has_a_note_or_a_field():
    """Each child of a domain, and of its devices, is named in a note or is a field of the machine."""
    from xml.etree import ElementTree

    fields = {"name", "memory", "vcpu", "os", "devices", "cputune", "memoryBacking", "cpu", "numatune", "disk", "interface"}
    for path in DOMAINS.glob("*.xml"):
        root = ElementTree.fromstring(path.read_text())
        told = " ".join(map(str, converted(path.read_text()).notes))
        for node in [*root, *root.find("devices")]:
            tag = node.tag.rpartition("}")[2]
            assert tag in fields or tag in told, (path.name, tag)


def test_a_kernel_and_defaults():
    kind = "<type arch='aarch64' machine='virt'>hvm</type>"
    result = small(f"<vcpu>2</vcpu><os>{kind}<kernel>/k</kernel><cmdline>a b</cmdline></os>")
    assert result.machine["boot"] == {"kernel": "/k", "cmdline": "a b"}
    assert result.machine["image"] == "none"
    assert result.machine["net"] == []
    assert said(result, "libvirt's default hides", rank="changed")
    planned(small("<vcpu>2</vcpu>"))


@pytest.mark.parametrize(("mib", "unit"), [(954, "GB"), (1024, "GiB"), (1024, "G")])
def test_units_of_memory(mib, unit):
    """Rounded up to whole MiB, as libvirt does."""
    result = converted(f"<domain type='kvm'><name>a</name><memory unit='{unit}'>1</memory></domain>")
    from tinamou.units import Size

    assert Size.parse(result.machine["memory"]["size"]).mib == mib


def test_settings_a_disk_or_a_card_has_not():
    disk = "<disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/><serial>abc</serial></disk>"
    card = "<interface type='user'><model type='virtio'/><link state='down'/></interface>"
    result = converted(f"<domain type='kvm'><name>a</name><devices>{disk}{card}</devices></domain>")
    assert said(result, "disk vda", "serial abc", rank="lost")
    assert said(result, "interface user", "link state=down", rank="lost")


def test_a_disc_that_comes_first():
    disk = "<disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/></disk>"
    disc = "<disk type='file' device='cdrom'><source file='/i.iso'/><target dev='sda' bus='sata'/></disk>"
    os = "<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='cdrom'/><boot dev='network'/><smbios mode='host'/></os>"
    result = converted(f"<domain type='kvm'><name>a</name>{os}<devices>{disk}{disc}</devices></domain>")
    assert result.machine["image"] == "/d"
    assert result.machine["disk"] == [{"path": "/i.iso", "interface": "cdrom"}]
    assert said(result, "/i.iso", "tried before the disk", rank="changed")
    assert said(result, "network", rank="lost") and said(result, "os/smbios mode=host", rank="lost")


def test_nodes_that_are_no_equal_parts():
    cells = "<cpu><numa><cell cpus='0-1' memory='1'/><cell cpus='2' memory='1'/></numa></cpu>"
    assert said(small(f"<vcpu>3</vcpu>{cells}"), "2 cells", rank="lost")


def test_what_is_refused():
    with pytest.raises(SpecError, match="xen"):
        small("", "type='xen'")
    with pytest.raises(SpecError, match="s390x"):
        small("<os><type arch='s390x'>hvm</type></os>")


@pytest.fixture(scope="module")
def virsh(tmp_path_factory):
    """``virsh(words…)`` on a libvirtd of the tests' own."""
    if os.geteuid() != 0:
        pytest.skip("root: the system's libvirtd is started as root")
    with ExitStack() as stack:
        scratch = tmp_path_factory.mktemp("virt")
        found = Libvirt.prepare(stack, scratch, "/usr/bin/qemu-system-x86_64", Path("/none"), Path("/none"))
        if isinstance(found, str):
            pytest.skip(f"libvirt: {found}")

        def run(*words: str, tool: str = "virsh") -> str:
            uri = ["--connect", found.uri]
            return subprocess.run([tool, *uri, *words], check=True, capture_output=True, text=True, timeout=120).stdout

        yield run


@pytest.mark.slow
@pytest.mark.vm
def test_what_libvirt_makes_of_a_domain(virsh, tmp_path):
    """Defined, and dumped with all that libvirt adds by itself: nothing of that is lost."""
    disk = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    (tmp_path / "a.xml").write_text(f"""<domain type='qemu'><name>plain</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<interface type='user'><model type='virtio'/></interface><graphics type='vnc'/><console type='pty'/></devices></domain>""")
    virsh("define", str(tmp_path / "a.xml"))
    try:
        result = converted(virsh("dumpxml", "plain"))
    finally:
        virsh("undefine", "plain")
    assert result.machine["image"] == str(disk)
    assert result.machine["memory"] == {"size": "512M"}
    assert [str(note) for note in result.notes if note.rank == "lost"] == []
    assert [note.where for note in result.notes if note.rank == "check"] == []
    planned(result)


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.skipif(not shutil.which("virt-install"), reason="virt-install is not installed (script/packages bench)")
def test_what_virt_install_writes(virsh, tmp_path):
    disk = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    words = f"--name installed --memory 1024 --vcpus 2 --import --disk {disk} --virt-type qemu --osinfo debian11".split()
    more = ["--network", "user", "--graphics", "spice", "--boot", "uefi", "--print-xml"]
    result = converted(virsh(*words, *more, tool="virt-install"))
    assert result.machine["image"] == str(disk)
    assert result.machine["memory"] == {"size": "1G"}
    assert result.machine["boot"]["firmware"] == "uefi"
    assert result.machine["display"] == {"type": "spice"}
    assert [net.keys() for net in result.machine["net"]] == [{"mac"}]
    planned(result)
