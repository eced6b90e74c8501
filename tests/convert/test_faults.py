"""What was once translated wrongly or in silence, kind by kind: each by a small source of that kind."""

from __future__ import annotations

import pytest
from appliances import ovf, vbox, vmx
from reading import converted, line, said

from tinamou.convert.assemble import Seen
from tinamou.errors import SpecError

Q = "qemu-system-x86_64 -nographic -m 1G"


def domain(devices: str = "", inside: str = "", kind: str = "kvm"):
    return converted(f"<domain type='{kind}'><name>a</name><vcpu>2</vcpu>{inside}<devices>{devices}</devices></domain>")


def card(inside: str, kind: str = "user"):
    return domain(f"<interface type='{kind}'><model type='virtio'/>{inside}</interface>")


def test_writes_that_were_thrown_away():
    two = '\nscsi0:1.fileName = "b.vmdk"\nscsi0:1.mode = "independent-nonpersistent"\n'
    assert said(converted(vmx(more=two)), "nonpersistent", "is written here", rank="lost")
    first = converted(vmx(more='scsi0:0.mode = "independent-nonpersistent"'))
    assert said(first, "nonpersistent", "layer", rank="changed") and not said(first, "nonpersistent", rank="lost")
    box = vbox().replace('format="VDI"', 'format="VDI" type="KIND"', 1)
    assert converted(box.replace("KIND", "Readonly")).machine["image"] == "box.vdi"
    assert said(converted(box.replace("KIND", "Immutable")), "type=Immutable", rank="changed")
    assert said(line(f"{Q} -hda a -drive file=b,snapshot=on"), "b is written here", rank="lost")


def test_a_line_in_a_variable():
    text = 'OPTS=" -m 2G"; OPTS="$OPTS -drive file=sys.qcow2,if=virtio"; exec qemu-system-x86_64 $OPTS -nographic'
    assert converted(text).machine["image"] == "sys.qcow2"
    text = 'CMD="qemu-system-x86_64 -m 4G"; CMD+=" -drive file=a.img,if=virtio"; eval $CMD'
    assert converted(text).machine["memory"] == {"size": "4G"}
    assert "-no-reboot" in line(f"{Q} -localtime --no-reboot").machine["qemu_args"]


def test_discs_that_are_not_there(tmp_path):
    from tinamou.convert import files, kinds

    more = ['ide1:0.deviceType="cdrom-image"', 'ide1:0.fileName="/usr/lib/vmware/isoimages/linux.iso"']
    for last in ('ide1:0.startConnected="FALSE"', ""):
        assert said(converted(vmx(more="\n".join([*more, last]))), "isoimages", "empty drive", rank="done")
    assert "disk" not in converted(vmx(more='sata0:1.fileName = "emptyBackingString"')).machine
    draft = kinds.read(vmx(more='ide1:0.deviceType="cdrom-image"\nide1:0.fileName="/elsewhere/a.iso"'))
    files.look(draft, tmp_path)
    assert [disk.cdrom for disk in draft.disks] == [False]
    assert any(note.rank == "check" and "/elsewhere/a.iso" in note.value for note in draft.notes)


def test_the_disk_is_the_machine_whatever_lies_in_the_drive():
    disk, disc = Seen("/d", True, "qcow2", ("bios",)), Seen("/i.iso", True, "iso", ("bios",))
    words = [*Q.split(), "-hda", "/d", "-cdrom", "/i.iso", "-boot", "dc"]
    both = converted(words, {"/d": disk, "/i.iso": disc})
    assert both.machine["image"] == "/d" and said(both, "tried before the disk", rank="changed")
    empty = converted(words, {"/d": Seen("/d", True, "qcow2"), "/i.iso": disc})
    assert empty.machine["image"] == "/i.iso" and empty.machine["boot"]["order"] == "disk1,disk0"
    deaf = converted(words, {"/d": disk, "/i.iso": Seen("/i.iso", True, "iso")})
    assert deaf.machine["image"] == "/d"


@pytest.mark.parametrize(
    "text",
    [
        "<domainCapabilities><path>/q</path><domain>kvm</domain></domainCapabilities>",
        "<node><domain/></node>",
        "<html><body/></html>",
        "#!/bin/sh\nqemu-img info x\ncp a b\n",
    ],
)
def test_what_is_no_machine(text):
    with pytest.raises(SpecError):
        converted(text)


def test_domains_within_other_documents():
    one = "<domain type='kvm'><name>a</name><memory>1048576</memory><devices/></domain>"
    for text in (f"<domstatus state='running'>{one}</domstatus>", f"<domainsnapshot><name>s</name>{one}</domainsnapshot>"):
        assert converted(text).machine["name"] == "a"
    two = converted(f"<?xml version='1.0'?>\n{one}\n<?xml version='1.0'?>\n{one.replace('>a<', '>b<')}\n")
    assert two.machine["name"] == "a" and said(two, "domain b", "second machine", rank="lost")


def test_objects_of_devices_that_are_passed_on():
    glass = "-object memory-backend-file,id=glass,share=on,mem-path=/dev/shm/g,size=32M -device nosuch,memdev=glass"
    result = line(f"{Q} {glass}")
    assert result.machine["qemu_args"][:2] == ["-object", glass.split()[1]]
    assert result.machine["memory"] == {"size": "1G"}
    assert said(line(f"{Q} -add-fd set=0,fd=20"), "descriptor", rank="lost")


def test_guests_without_a_network():
    assert card("<link state='down'/>").machine["net"] == []
    assert converted(vmx(more='ethernet0.startConnected = "FALSE"')).machine["net"] == []
    assert [one["type"] for one in converted(vbox().replace('slot="0"', 'slot="0" cable="false"')).machine["net"]] == [
        "bridge"
    ]
    address = "<source><address type='pci' domain='0' bus='0x5' slot='0' function='0x1'/></source>"
    assert card(address, "hostdev").machine["pci"] == ["0000:05:00.1"]


def test_watchdog_sound_and_vsock():
    result = domain(
        "<watchdog model='i6300esb' action='pause'/><sound model='ac97'/><vsock><cid auto='no' address='7'/></vsock>"
    )
    assert result.machine["devices"] == {"sound": "hda", "watchdog": "pause", "vsock": 7}
    assert said(result, "ac97", rank="changed") and said(domain("<watchdog model='diag288'/>"), "diag288", rank="lost")


def test_memory_for_pictures():
    shared = "<shmem name='looking-glass'><model type='{}'/><size unit='M'>{}</size></shmem>"
    result = domain(shared.format("ivshmem-plain", 64))
    assert result.machine["display"]["looking_glass"] == "64M"
    assert said(result, "looking-glass", rank="changed")
    for other in (("ivshmem-plain", 65), ("ivshmem-doorbell", 64)):
        assert said(domain(shared.format(*other)), "looking-glass", rank="lost")
    assert line(f"{Q} -device ivshmem-plain,memdev=lg -object memory-backend-file,id=lg,size=32M").machine["qemu_args"]
    result = line(f"{Q} -object memory-backend-file,id=lg,share=on,size=32M -device ivshmem-plain,memdev=lg")
    assert (result.machine["display"]["looking_glass"], "qemu_args" in result.machine) == ("32M", False)


def test_persistent_memory_is_a_file_the_guest_wrote_to():
    """What kept nothing of what was written is none, nor is what the guest finds by labels."""
    source, target = "<source><path>/srv/m</path></source>", "<target><size unit='KiB'>65536</size></target>"
    memory = "<memory model='{}' access='shared'>" + f"{source}{target}</memory>"
    result = domain(memory.format("virtio-pmem"))
    assert result.machine["pmem"] == [{"path": "/srv/m"}]
    assert said(result, "/srv/m", rank="changed")
    assert "pmem" not in (result := domain(memory.format("nvdimm"))).machine
    assert said(result, "no NVDIMM", rank="lost")
    shown = f"{Q} -device virtio-pmem-pci,memdev=p -object memory-backend-file,id=p,size=64M,mem-path=/srv/m"
    assert line(f"{shown},share=on").machine["pmem"] == [{"path": "/srv/m"}]
    assert line(f"{shown},share=on,readonly=on").machine["pmem"] == [{"path": "/srv/m", "readonly": True}]
    for private in (shown, f"{shown},share=off"):
        assert "pmem" not in (result := line(private)).machine
        assert said(result, "was thrown away", rank="lost")


def test_forwarded_ranges():
    ports = (
        "<portForward proto='tcp' address='127.0.0.1'><range start='80' end='82' to='90'/><range start='81' exclude='yes'/>"
    )
    assert card(f"{ports}</portForward>").machine["net"][0]["forward"] == ["tcp:127.0.0.1:80:90", "tcp:127.0.0.1:82:92"]


def test_what_a_guest_is_told_of_its_hypervisor():
    inside = "<hyperv><relaxed state='on'/><spinlocks state='on' retries='8191'/></hyperv><kvm><hidden state='on'/></kvm>"
    timer = "<clock offset='localtime'><timer name='hypervclock' present='yes'/></clock>"
    result = domain(inside=f"<os><type arch='x86_64'>hvm</type></os><features>{inside}</features>{timer}")
    assert result.machine["cpu"]["hyperv"] == "relaxed,spinlocks=8191,time"
    assert said(result, "hidden", "kvm=off", rank="changed") and result.machine["clock"] == {"base": "localtime"}
    assert (
        "pmu=off" in domain(inside="<features><pmu state='off'/></features><cpu mode='host-model'/>").machine["cpu"]["model"]
    )


@pytest.mark.parametrize("words", ["-bios OVMF.fd -kernel bzImage -append x", "-kernel bzImage -bios OVMF.fd"])
def test_a_kernel_with_a_firmware(words):
    result = line(f"{Q} {words}")
    assert result.machine["boot"]["kernel"] == "bzImage" and "firmware" not in result.machine["boot"]
    assert said(result, "firmware = uefi", "no firmware runs", rank="lost")


def test_policies_of_encrypted_memory():
    sev = "<launchSecurity type='sev'><policy>{}</policy><session>A</session></launchSecurity>"
    assert domain(inside=sev.format("0x0005")).machine["confidential"] == {"type": "sev-es"}
    weak = domain(inside=sev.format("0x0002"))
    assert weak.machine["confidential"] == {"type": "sev"}
    assert said(weak, "policy=0x2", "decrypt", rank="changed") and said(weak, "session", rank="lost")
    words = f"{Q} -object sev-guest,id=s,policy=0x5,cbitpos=47 -machine confidential-guest-support=s"
    assert line(words).machine["confidential"] == {"type": "sev-es"}


@pytest.mark.parametrize("name", ["/home/secure/QEMU_EFI.fd", "secure-world.rom"])
def test_names_that_only_look_secure(name):
    assert "secure" not in line(f"{Q} -bios {name}").machine.get("boot", {})


def test_filters_slices_and_encrypted_nodes():
    nodes = "-blockdev driver=copy-on-read,node-name=c,file=f -blockdev driver=qcow2,node-name=f,file.filename=a"
    assert line(f"{Q} {nodes} -device virtio-blk-pci,drive=c").machine["image"] == "a"
    for more in ("driver=raw,offset=512,size=1024", "driver=luks,key-secret=s"):
        result = line(f"{Q} -hda b -blockdev {more},node-name=n,file.driver=file,file.filename=a -device scsi-hd,drive=n")
        assert "disk" not in result.machine and said(result, more.split(",")[0], rank="lost")
    part = "<disk type='file'><source file='/d'><slices><slice type='storage' offset='1' size='2'/></slices></source>"
    assert said(domain(f"{part}<target dev='vda'/></disk>"), "slice", rank="lost")


def test_disks_in_the_order_libvirt_gives_them():
    disks = "".join(f"<disk><source file='/{n}'/><target dev='vd{n}' bus='virtio'/></disk>" for n in "ba")
    result = domain(disks)
    assert result.machine["image"] == "/a" and result.machine["disk"] == [{"path": "/b"}]


def test_pages_that_are_not_huge():
    inside = "<memoryBacking><hugepages><page size='4' unit='KiB'/></hugepages></memoryBacking>"
    assert domain(inside=inside).machine["memory"]["hugepages"] == "auto"


@pytest.mark.parametrize(
    "source",
    [
        f"{Q} -spice password=hunter2,port=1",
        f"{Q} -object secret,id=s,data=hunter2 -hda a",
        f"{Q} -device isa-applesmc,osk=hunter2",
        vmx(more='RemoteDisplay.vnc.password = "hunter2"\nguestinfo.userdata = "hunter2"'),
        ovf(more="").replace(
            "<VirtualHardwareSection>",
            '<ProductSection><Info/><Property ovf:key="admin" ovf:password="true" ovf:value="hunter2"/></ProductSection>'
            "<VirtualHardwareSection>",
        ),
        "<domain><name>a</name><devices><graphics type='vnc' passwd='hunter2'/></devices></domain>",
        "<domain><name>a</name><metadata><x password='hunter2'/></metadata><future passwd='hunter2'/></domain>",
    ],
)
def test_passwords_stay_out_of_notes(source):
    notes = converted(source).notes
    assert not any("hunter2" in str(note) for note in notes) and notes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("-M virt,virtualization=on", "virtualization=on"),
        ("-device vfio-pci,host=05:00.0,x-vga=on,romfile=/r", "x-vga=on"),
        ("-display sdl,gl=on", "gl=on"),
        ("-device virtio-vga-gl", "virtio-vga-gl"),
        ("-serial file:/x", "file:/x"),
        ("-netdev user,id=n,hostname=w -device virtio-net,netdev=n", "hostname=w"),
        ("-object rng-egd,id=r", "rng-egd"),
    ],
)
def test_losses_of_a_line_are_told(words, told):
    assert said(line(f"{Q} {words}"), told, rank="lost")


def test_placeholders_are_no_disks():
    result = line(f"{Q} -hda a ... [options]")
    assert "disk" not in result.machine and said(result, "[options]", rank="check")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a%20b", "a-b"),
        ("50|25 off", "50-off"),
        ("x%7C41y", "xAy"),
        ("100%", "100"),
        ("b|C3|A4r", "b-r"),
        ("b%C3%A4r", "b-r"),
    ],
)
def test_names_of_vmware_are_escaped_twice(written: str, name: str) -> None:
    text = vmx().replace('displayName = "Web Server"', f'displayName = "{written}"')
    assert converted(text).machine["name"] == name.lower()
