"""Faults found by comparing a sample of public descriptions with what came of them, each of its kind in words of our own."""

from __future__ import annotations

import json

import pytest
from reading import converted, line, said

from tinamou.convert import kinds
from tinamou.errors import SpecError


def domain(devices: str, more: str = ""):
    os = "<os><type arch='x86_64'>hvm</type></os>"
    text = f"<domain type='kvm'><name>a</name><memory>2097152</memory>{more}{os}<devices>{devices}</devices></domain>"
    return converted(text)


def test_the_substitution_of_a_command_is_one_word_wherever_it_is_put_in():
    script = 'N=$(basename $0 | cut -d . -f 1)\nM=`date +%s x`\nOPTS="-name $N-$M -m 2G"\n'
    result = converted(script + "qemu-system-x86_64 $OPTS -drive file=/srv/$N/a.qcow2,if=virtio\n")
    assert result.machine["image"] == "/srv/$(basename $0 | cut -d . -f 1)/a.qcow2"
    assert result.machine["memory"] == {"size": "2G"} and "disk" not in result.machine and "qemu_args" not in result.machine


@pytest.mark.parametrize(
    "text",
    [
        "name,version\nqemu,7.2\nqemu-kvm,7.2\n",
        "case $1 in\n-m) MEM=$2 ;;\n-smp) CPUS=$2 ;;\nesac\necho done\n",
        "Depends: bridge-utils,\n         virt-install (>= 3.0),\n",
        "use this with qemu -when it is there\nqemu\ncp a b\n",
        "apiVersion: machines.example.org/v1\nkind: VirtualMachine\nspec: {memory: 1Gi}\n",
        "cpu: 2\nmemory: 2\nruntime: docker\nvmType: qemu\nmountType: sshfs\n",
        "<boxes><domain class='Box' id='a'><devices/></domain></boxes>",
    ],
)
def test_a_text_that_only_speaks_of_machines_is_none(text):
    assert kinds.kind_of(text) == ""


def test_a_text_about_xen_is_refused_by_name():
    words = "".join(f"This is sentence {number} of it\n" for number in range(9))
    with pytest.raises(SpecError, match="about Xen"):
        converted(f"{words}name = 'a'\ndisk = ['/srv/a,raw,xvda,rw']\n")


@pytest.mark.parametrize("start", ["qemu-system-x86_64\n", "  - qemu-system-x86_64\n"])
def test_options_line_by_line_belong_to_the_binary_above_them(start):
    result = converted(f"{start}-m 2G\n-drive file=/srv/a.qcow2,if=virtio\n-nographic\n")
    assert result.machine["image"] == "/srv/a.qcow2" and result.machine["memory"] == {"size": "2G"}
    assert not said(result, "second machine")


def test_virt_install_in_its_old_words():
    text = (
        "virt-install --name a --memory 1024 --os-type linux --description x --disk /srv/a.qcow2 --network network:default\n"
    )
    result = converted(text)
    assert result.machine["net"] == [{}] and not said(result, "", rank="lost")
    assert converted(text.replace("network:default", "bridge:br0")).machine["net"] == [{"type": "bridge", "bridge": "br0"}]


def test_disks_of_libvirt_stand_in_the_order_of_their_letters():
    disk = "<disk type='file'><source file='/{0}'/><target dev='{0}' bus='scsi'/></disk>"
    assert domain(disk.format("sde") + disk.format("vdb")).machine["image"] == "/vdb"
    assert domain(disk.format("sdaa") + disk.format("sdz")).machine["image"] == "/sdz"


CARD = "<hostdev mode='subsystem' type='pci'><driver name='vfio'/><source><address bus='1'/></source>{}</hostdev>"


def test_what_libvirt_starts_first_and_is_no_disk_is_told():
    result = domain(CARD.format("<boot order='1'/>"))
    assert said(result, "order=1", "this device first", rank="check") and not said(result, "vfio", rank="lost")
    assert not said(domain(CARD.format("")), "this device first")
    card = "<interface type='user'><boot order='1'/></interface>"
    assert said(domain(card), "boot", "carry no boot programs", rank="lost")


def test_libvirt_says_how_a_share_is_carried_and_what_the_balloon_leaves():
    share = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='s'/></filesystem>"
    assert not said(domain(share), "virtiofs", rank="lost")
    less = domain("", "<currentMemory>1048576</currentMemory>")
    assert said(less, "1048576", "all its memory", rank="changed")
    assert said(domain("", "<currentMemory>2097152</currentMemory>"), "balloon", rank="done")


def test_serial_ports_beside_the_console_are_there():
    port = "<serial type='pty'><target port='{}'/></serial>"
    result = domain("".join(port.format(number) for number in range(5)))
    assert result.machine["devices"]["serial"] == 3 and said(result, "board has 3 serial ports", rank="lost")
    file = domain("<serial type='pty'/><serial type='file'><source path='/srv/log'/></serial>")
    assert file.machine["devices"]["serial"] == 1 and said(file, "/srv/log", "it led to a file", rank="lost")
    assert converted(VMX + 'serial0.present = "TRUE"\nserial1.present = "TRUE"\n').machine["devices"]["serial"] == 1
    assert converted(PROXMOX + "serial1: socket\n").machine["devices"]["serial"] == 1
    assert line("qemu-system-x86_64 -serial stdio -serial pty").machine["devices"]["serial"] == 1


VMX = 'config.version = "8"\ndisplayName = "a"\nscsi0:0.fileName = "a.vmdk"\n'


def test_a_vmware_machine_has_a_screen_and_its_sound():
    sound = 'sound.present = "TRUE"\nsound.virtualDev = "{}"\n'
    result = converted(VMX + sound.format("hdaudio") + 'mks.enable3d = "TRUE"\n')
    assert result.machine["display"] == {"type": "vnc"} and result.machine["devices"] == {"sound": "hda"}
    assert said(result, "mks.enable3d", "draws nothing", rank="lost") and said(result, "hdaudio", rank="done")
    assert said(converted(VMX + sound.format("sb16")), "sb16", rank="changed")
    assert said(converted(VMX + 'usb:1.deviceType = "hub"\n'), "hub", rank="check")


VBOX = """<VirtualBox version="1.19-linux"><Machine name="a" OSType="Linux_64"><Hardware><Memory RAMSize="1024"/>
<Display accelerate3D="true"/><AudioAdapter controller="HDA" enabled="true"/>
<UART><Port slot="0" enabled="true"/><Port slot="1" enabled="true" hostMode="HostPipe" path="/srv/p"/></UART>
<USB><DeviceFilters><DeviceFilter name="k" active="true" vendorId="046D" productId="C016"/></DeviceFilters></USB>
</Hardware></Machine></VirtualBox>"""


def test_a_virtualbox_machine_has_a_screen_its_sound_ports_and_usb_devices():
    result = converted(VBOX)
    assert result.machine["display"] == {"type": "vnc"} and result.machine["devices"] == {"sound": "hda", "serial": 1}
    assert result.machine["usb"] == [{"type": "host", "device": "046d:c016"}]
    assert said(result, "accelerate3D", rank="lost") and said(result, "/srv/p", "HostPipe", rank="lost")


OVF = """<Envelope><VirtualSystem id="a"><VirtualHardwareSection>
<Item><InstanceID>1</InstanceID><ResourceType>21</ResourceType></Item>
<Item><InstanceID>2</InstanceID><ResourceType>21</ResourceType></Item>
<Item><InstanceID>3</InstanceID><ResourceType>24</ResourceType><Config key="enable3DSupport" value="true"/></Item>
<Item><InstanceID>4</InstanceID><ResourceType>4</ResourceType><VirtualQuantity>0</VirtualQuantity></Item>
<ExtraConfig key="a.b" value="c"/></VirtualHardwareSection></VirtualSystem></Envelope>"""


def test_an_ovf_with_a_screen_and_two_ports():
    result = converted(OVF)
    assert result.machine["devices"] == {"serial": 1} and result.machine["display"] == {"type": "vnc"}
    assert said(result, "enable3DSupport", rank="lost") and said(result, "a.b", rank="check")
    assert "memory" not in result.machine and said(result, "memory.size", rank="lost")


PROXMOX = "cores: 4\nname: a\nscsi0: local:100/x.qcow2\n"


def test_what_a_proxmox_machine_says_of_its_devices_and_hooks():
    result = converted(PROXMOX + "hostpci0: 01:00,pcie=1,rombar=0,romfile=a.rom,x-vga=1\nhookscript: local:snippets/a.pl\n")
    assert result.machine["pci"] == [{"device": "0000:01:00.0", "rom": False}]
    assert said(result, "romfile=a.rom,x-vga=1", rank="lost") and said(result, "a.pl", "no script", rank="lost")
    assert said(converted(PROXMOX + "[PENDING]\nmemory: 1\n"), "[PENDING] memory: 1", rank="check")


def test_lists_with_nothing_in_them_say_nothing():
    config = {"vcpu_count": 1, "mem_size_mib": 128, "ht_enabled": False}
    text = {
        "boot-source": {"kernel_image_path": "vmlinux"},
        "machine-config": config,
        "drives": [],
        "network-interfaces": [],
    }
    result = converted(json.dumps(text | {"vsock": {"vsock_id": "v", "guest_cid": 3, "uds_path": "v.sock"}}))
    assert not said(result, "", rank="lost") and said(result, "vsock_id", rank="done")
    lima = "vmType: qemu\nimages:\n- location: a.img\nmounts: []\ncontainerd: {system: false, user: %s}\n"
    assert not said(converted(lima % "false"), "", rank="lost")
    assert said(converted(lima % "true"), "containerd", rank="lost")


def test_numbers_that_are_none_and_files_nobody_names_are_told():
    text = "<domain type='kvm'><name>a</name><memory>{{.M}}</memory><vcpu>{{.C}}</vcpu><devices/></domain>"
    result = converted(text)
    assert said(result, "{{.M}}", rank="check") and said(result, "{{.C}}", rank="check")
    card = "<interface type='direct'><source dev='eth0'/></interface>"
    assert said(domain(card), "vepa", rank="lost")
    files = '<References><File id="f" href="a.nvram"/></References>'
    assert said(converted(OVF.replace("<VirtualSystem", f"{files}<VirtualSystem", 1)), "a.nvram", "no disk", rank="check")
    media = '<MediaRegistry><HardDisks><HardDisk uuid="{1}" location="b.vdi"/></HardDisks></MediaRegistry>'
    assert said(converted(VBOX.replace("<Hardware>", f"{media}<Hardware>", 1)), "b.vdi", "no drive", rank="done")
