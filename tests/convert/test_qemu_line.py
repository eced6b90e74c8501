"""QEMU command lines: every spelling of an option, shell scripts, and what is refused or passed on."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import converted, line, planned, said

from tinamou.convert import qemu_line, shell, writing
from tinamou.convert.assemble import Seen
from tinamou.errors import SpecError
from tinamou.spec import load_spec

Q = "qemu-system-x86_64 -nographic"


@pytest.mark.parametrize(
    ("words", "size"),
    [("-m 4096", "4G"), ("-m 4G", "4G"), ("-m size=4g", "4G"), ("-m 1.5G", "1536M"), ("-m 2048M,slots=2,maxmem=8G", "2G")],
)
def test_memory(words, size):
    result = line(f"{Q} {words}")
    assert result.machine["memory"]["size"] == size
    assert said(result, "maxmem", rank="lost") == ("maxmem" in words)


def test_too_little_and_no_memory():
    assert said(line(f"{Q} -m 8"), "-m 8", "16M", rank="changed")
    assert said(line(f"{Q} -m lots"), "not a size", rank="lost")
    assert said(line(Q), "128 MiB", rank="changed")


@pytest.mark.parametrize(
    ("words", "cpu"),
    [
        ("-smp 4", {"count": 4}),
        ("-smp cpus=4,sockets=2,cores=2", {"count": 4, "sockets": 2, "cores": 2}),
        ("-smp sockets=1,cores=2,threads=2", {"count": 4, "sockets": 1, "cores": 2, "threads": 2}),
        ("-smp 2,maxcpus=8", {"count": 2}),
        ("-smp 3,cores=2", {"count": 3}),
        ("-smp 4,dies=2,cores=2", {"count": 4}),
    ],
)
def test_cpus(words, cpu):
    result = line(f"{Q} {words}")
    assert result.machine["cpu"] == cpu
    assert bool({note.where for note in result.notes} & {"-smp"}) == (
        words.split()[1] in ("2,maxcpus=8", "3,cores=2", "4,dies=2,cores=2")
    )


def test_models():
    assert "cpu" not in line(f"{Q} -cpu host").machine
    assert line(f"{Q} -cpu host,+vmx").machine["cpu"]["model"] == "host,+vmx"
    assert line(f"{Q} -cpu EPYC-v4").machine["cpu"]["model"] == "EPYC-v4"
    assert said(line(f"{Q} -cpu qemu64"), "AES", rank="changed")


def test_accelerators():
    assert "accel" not in line(f"{Q} -enable-kvm").machine
    assert "accel" not in line(f"{Q} -M q35,accel=kvm:tcg").machine
    assert line(f"{Q} -accel tcg").machine["accel"] == "tcg"


DISKS = [
    ("-hda a.img", {"image": "a.img"}),
    ("a.img", {"image": "a.img"}),
    ("-drive file=a.img,format=raw,if=virtio", {"image": "a.img"}),
    ("-drive file=a.img,if=none,id=d -device virtio-blk-pci,drive=d", {"image": "a.img"}),
    ("-blockdev qcow2,node-name=d,file.driver=file,file.filename=a.img -device scsi-hd,drive=d", {"image": "a.img"}),
    ("-blockdev file,node-name=f,filename=a.img -blockdev raw,node-name=d,file=f -device nvme,drive=d",
     {"image": "a.img"}),
    ("-hda a.img -hdb b.img", {"image": "a.img", "disk": [{"path": "b.img"}]}),
    ("-cdrom a.iso", {"image": "a.iso"}),
    ("-hda a.img -cdrom c.iso", {"image": "a.img", "disk": [{"path": "c.iso", "interface": "cdrom"}]}),
    ("-hda a.img -drive file=b.img,if=scsi,cache=none,readonly=on",
     {"image": "a.img", "disk": [{"path": "b.img", "cache": "none", "readonly": True, "interface": "scsi"}]}),
    ("-hda a.img -drive file=b.raw,format=raw,if=none,id=b,iops=50 -object iothread,id=i "
     "-device virtio-blk,drive=b,iothread=i,num-queues=2",
     {"image": "a.img", "disk": [{"path": "b.raw", "format": "raw", "iothread": True, "queues": 2, "iops": 50}]}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "fields"), DISKS, ids=[words for words, _ in DISKS])
def test_disks(words, fields):
    result = line(f"{Q} {words}")
    assert {key: result.machine.get(key) for key in ("image", "disk") if key in result.machine} == fields
    planned(result)


def test_json_options():
    words = [
        "qemu-system-x86_64",
        "-blockdev",
        '{"driver":"qcow2","node-name":"d","file":{"driver":"file","filename":"a.qcow2"},"read-only":true}',
        "-device",
        '{"driver":"virtio-blk-pci","drive":"d","bootindex":1}',
        "-netdev",
        '{"type":"user","id":"n","restrict":true}',
        "-device",
        '{"driver":"e1000","netdev":"n"}',
    ]
    result = converted(words)
    assert result.machine["image"] == "a.qcow2"
    assert result.machine["net"] == [{"isolated": True}]


def test_an_installation():
    """An empty disk and a disc: the disc is what starts, the disk comes first as soon as there is something on it."""
    empty = {"d.qcow2": Seen("/x/d.qcow2", True, "qcow2", ()), "i.iso": Seen("/x/i.iso", True, "iso", ("bios",))}
    result = converted(f"{Q} -cdrom i.iso -hda d.qcow2 -boot d -m 2G".split(), empty)
    assert result.machine["image"] == "/x/i.iso"
    assert result.machine["disk"] == [{"path": "/x/d.qcow2"}]
    assert result.machine["boot"]["order"] == "disk1,disk0"
    full = empty | {"d.qcow2": Seen("/x/d.qcow2", True, "qcow2", ("bios",))}
    assert "boot" not in converted(f"{Q} -cdrom i.iso -hda d.qcow2 -boot d".split(), full).machine
    assert converted(f"{Q} -cdrom i.iso -hda d.qcow2".split(), full).machine["image"] == "/x/d.qcow2"


NETS = [
    ("-nic user,model=virtio", [{}]),
    ("-nic none", []),
    ("-net none", []),
    ("-netdev user,id=n,hostfwd=tcp:127.0.0.1:2222-:22 -device e1000,netdev=n", [{"forward": ["tcp:127.0.0.1:2222:22"]}]),
    ("-netdev user,id=n,hostfwd=tcp::80-:80,hostfwd=udp::53-:53 -device virtio-net-pci,netdev=n",
     [{"forward": ["tcp:127.0.0.1:80:80", "udp:127.0.0.1:53:53"]}]),
    ("-nic bridge,br=br0,mac=52:54:00:00:00:01", [{"type": "bridge", "bridge": "br0", "mac": "52:54:00:00:00:01"}]),
    ("-netdev tap,id=n,vhost=on,queues=4,script=no -device virtio-net-pci,netdev=n,mq=on,vectors=10",
     [{"type": "tap", "queues": 4}]),
    ("-chardev socket,id=c,path=/run/v -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n",
     [{"type": "vhost-user", "socket": "/run/v"}]),
    ("-redir tcp:2222::22 -net nic", [{"forward": ["tcp:127.0.0.1:2222:22"]}]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "nets"), NETS, ids=[words for words, _ in NETS])
def test_networks(words, nets):
    result = line(f"{Q} {words}")
    assert result.machine["net"] == nets
    planned(result)


def test_an_open_port_is_said():
    result = line(f"{Q} -nic user,hostfwd=tcp::2222-:22")
    assert said(result, "every address", "tcp:0.0.0.0:2222:22", rank="check")


def test_firmware():
    code = "-drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M{}.fd"
    pair = f"{code} -drive if=pflash,format=raw,file=vars.fd"
    assert line(f"{Q} {pair.format('')}").machine["boot"] == {"firmware": "uefi"}
    secure = line(f"{Q} {pair.format('.secboot')}")
    assert secure.machine["boot"] == {"firmware": "uefi"}
    assert said(secure, "vars.fd", "hold keys", rank="check")
    keys = line(f"{Q} {pair.format('.secboot').replace('vars.fd', 'OVMF_VARS_4M.ms.fd')}")
    assert keys.machine["boot"] == {"firmware": "uefi", "secure": True}
    assert said(secure, "vars.fd", "variables of its own", rank="check")
    assert said(line(f"{Q} -bios coreboot.rom"), "coreboot.rom", rank="lost")
    blockdevs = (
        "-blockdev node-name=c,driver=file,filename=/usr/share/OVMF/OVMF_CODE.fd,read-only=on "
        "-blockdev node-name=code,driver=raw,file=c -machine q35,pflash0=code"
    )
    result = line(f"{Q} {blockdevs}")
    assert result.machine["boot"] == {"firmware": "uefi"}
    assert not said(result, "nothing refers to it")
    unnamed = "-drive if=pflash,readonly=on,file=$ROM -drive if=pflash,file=$VARS"
    assert line(f"{Q} {unnamed}").machine["boot"] == {"firmware": "uefi"}


def test_a_kernel():
    words = ["qemu-system-aarch64", "-kernel", "Image", "-initrd", "i.gz", "-append", "root=/dev/vda quiet", "-M", "virt"]
    result = converted(words)
    assert result.machine["image"] == "none"
    assert result.machine["boot"] == {"kernel": "Image", "initrd": "i.gz", "cmdline": "root=/dev/vda quiet"}
    assert result.machine["arch"] == "aarch64"


def test_huge_pages_and_nodes():
    words = (
        "-m 4G -smp 4 -object memory-backend-memfd,id=m0,size=2G,hugetlb=on,hugetlbsize=2M,host-nodes=0,policy=bind "
        "-object memory-backend-file,id=m1,size=2G,mem-path=/dev/hugepages "
        "-numa node,nodeid=0,memdev=m0 -numa node,memdev=m1"
    )
    result = line(f"{Q} {words}")
    assert result.machine["cpu"]["nodes"] == 2
    assert result.machine["memory"]["hugepages"] in ("2M", "auto")
    assert said(result, "host-nodes=0", rank="changed")


def test_screens():
    assert line("qemu-system-x86_64 -hda a.img").machine["display"] == {"type": "vnc"}
    assert "display" not in line(f"{Q} -hda a.img").machine
    assert said(line("qemu-system-x86_64 -vnc :1"), "everybody", rank="changed")
    assert not said(line("qemu-system-x86_64 -vnc 127.0.0.1:1"), "everybody")
    assert line("qemu-system-x86_64 -spice port=5900,disable-ticketing=on").machine["display"] == {"type": "spice"}
    assert line("qemu-system-x86_64 -display gtk").machine["display"] == {"type": "vnc"}


def test_shares_and_tpm():
    share = "-virtfs local,path=/srv,mount_tag=host0,security_model=mapped-xattr,readonly=on"
    tpm = "-chardev socket,id=t,path=/t -tpmdev emulator,id=tpm0,chardev=t -device tpm-crb,tpmdev=tpm0"
    result = line(f"{Q} {share} {tpm}")
    assert result.machine["share"] == [{"path": "/srv", "readonly": True}]
    assert result.machine["tpm"] == {"enabled": True}
    assert not any(note.rank == "lost" for note in result.notes)
    fsdev = line(f"{Q} -fsdev local,id=f,path=/srv -device virtio-9p-pci,fsdev=f,mount_tag=x")
    assert fsdev.machine["share"] == [{"path": "/srv"}]


def test_what_tinamou_does_itself():
    result = line(
        f"{Q} -daemonize -pidfile /p -monitor stdio -qmp unix:/q,server -serial mon:stdio -no-user-config -sandbox on"
    )
    assert "qemu_args" not in result.machine
    assert [note for note in result.notes if note.rank == "lost"] == []
    assert said(line(f"{Q} -S"), "-S", rank="lost")


def test_what_is_unknown_is_passed_on_with_what_it_needs():
    result = line(f"{Q} -chardev null,id=c -device pci-serial,chardev=c -fancy 1 -uuid 9d3b")
    needed = ["-chardev", "null,id=c", "-device", "pci-serial,chardev=c"]
    assert result.machine["qemu_args"] == ["-fancy", "1", "-uuid", "9d3b", *needed]
    assert said(result, "-fancy", "qemu_args", rank="check")


def test_what_nothing_refers_to_is_said():
    assert said(line(f"{Q} -netdev user,id=n"), "nothing refers to it", rank="check")
    assert said(line(f"{Q} -device virtio-blk-pci,drive=d"), "no -drive", rank="lost")
    assert said(line(f"{Q} -drive file=nbd://host/x,if=virtio"), "nbd://host/x", rank="lost")


SCRIPT = r"""#!/bin/bash
set -e
# don't be disturbed by this quote
MEM=${1:-2G}
DISK="my disk.qcow2"
ARGS=(
  -m "$MEM"      # memory
  -smp 2
)
[ -e "$DISK" ] || qemu-img create -f qcow2 "$DISK" 10G
exec sudo taskset -c 2,3 qemu-system-x86_64 "${ARGS[@]}" -nographic \
    -drive "file=$DISK,if=virtio" \
    -append 'console=ttyS0 quiet' -kernel ./bzImage 2>&1 | tee log
"""


def test_a_script():
    result = converted(SCRIPT)
    assert result.machine["memory"] == {"size": "2G"}
    assert result.machine["cpu"] == {"count": 2, "pin": "2-3"}
    assert result.machine["disk"] == [{"size": "10G"}]
    assert result.machine["boot"]["cmdline"] == "console=ttyS0 quiet"


def test_a_second_line_is_named():
    result = converted(f"{Q} -m 1G\n{Q} -m 2G\n")
    assert result.machine["memory"]["size"] == "1G"
    assert said(result, "line 2", "second machine", rank="lost")


def test_variables_are_put_in_and_substitutions_are_not_run(tmp_path):
    text = f"A=1G\nqemu-system-x86_64 -m $A -name $(touch {tmp_path}/ran) -hda `touch {tmp_path}/ran`"
    result = converted(text)
    assert result.machine["memory"]["size"] == "1G"
    assert not (tmp_path / "ran").exists()
    assert said(result, "only a shell", rank="check")


def test_what_is_refused():
    with pytest.raises(SpecError, match="ppc64"):
        line("qemu-system-ppc64 -m 1G")
    with pytest.raises(SpecError, match="no QEMU command line"):
        line("ls -l")
    with pytest.raises(SpecError, match="never closed"):
        shell.commands("qemu-system-x86_64 'half")


def test_the_file_reads_back():
    result = line(f"{Q} -m 4G -smp 2 -hda a.img -hdb b.img -nic user -tpmdev emulator,id=t,chardev=c -cpu EPYC")
    text = writing.text(result.machine, result.source)
    assert load_spec(tomllib.loads(text)) == load_spec(result.machine)
    assert 'memory = "4G"' in text


@given(st.lists(st.text(alphabet="-abcdefmnpstuv=,.:/$()'{}0 ", min_size=1, max_size=12), max_size=12))
def test_any_words_make_a_machine_that_loads(words):
    """Whatever is pasted: it loads, or is refused with a reason."""
    try:
        result = converted(["qemu-system-x86_64", *words])
    except SpecError:
        return
    load_spec(tomllib.loads(writing.text(result.machine, result.source)))


@given(st.dictionaries(st.sampled_from("abcdef"), st.text(alphabet="xyz,=", max_size=6), min_size=1))
def test_commas_are_doubled_in_values(values):
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in values.items())
    assert qemu_line.keys(text) == values


def test_what_is_said_about_a_network_is_kept_or_told():
    line = ["qemu-system-x86_64", "-netdev", "user,id=n,ipv6=off", "-device", "virtio-net-pci,netdev=n,host_mtu=1400"]
    assert converted(line).machine["net"] == [{"ipv6": False, "mtu": 1400}]
    told = converted(["qemu-system-x86_64", "-netdev", "user,id=n,ipv4=off", "-device", "virtio-net-pci,netdev=n"]).notes
    assert any(note.rank == "lost" and "IPv4" in note.reason for note in told)


def test_enlightenments_and_the_clock():
    shown = "host,hv_relaxed,hv_spinlocks=0x1fff,-hv_time,migratable=no"
    result = line(f"{Q} -enable-kvm -cpu {shown} -rtc base=localtime,driftfix=slew")
    assert result.machine["cpu"]["hyperv"] == "hv_relaxed,hv_spinlocks=0x1fff"
    assert result.machine["cpu"]["model"] == "host,-hv_time,migratable=no"
    assert result.machine["clock"] == {"base": "localtime"}
    assert line(f"{Q} -rtc clock=vm").machine["qemu_args"] == ["-rtc", "clock=vm"]


def test_small_devices():
    devices = "-device usb-tablet -device usb-kbd,bus=xhci.0 -device i6300esb -device ich9-intel-hda -device hda-duplex"
    result = line(f"{Q} {devices} -watchdog-action pause -device vhost-vsock-pci,guest-cid=7 -serial mon:stdio -serial null")
    assert result.machine["usb"] == ["tablet", "keyboard"]
    assert result.machine["devices"] == {"sound": "hda", "watchdog": "pause", "vsock": 7, "serial": 1}
    assert line(f"{Q} -device i6300esb").machine["devices"] == {"watchdog": "reset"}
    assert "devices" not in line(f"{Q} -watchdog-action reset").machine
    assert line(f"{Q} -watchdog-action nosuch").machine["qemu_args"] == ["-watchdog-action", "nosuch"]
    assert line(f"{Q} -audio pa,model=virtio").machine["devices"] == {"sound": "virtio"}
    assert said(line(f"{Q} -device AC97"), "hda", rank="changed")


def test_what_the_guest_reads_of_its_maker():
    result = line(f"{Q} -smbios type=1,manufacturer=ACME,product=Walk -smbios type=11,value=a=1 -smbios type=11,value=b")
    assert result.machine["smbios"] == {"manufacturer": "ACME", "product": "Walk", "oem": ["a=1", "b"]}
    for other in ("type=1,manufacturer=ACME,nosuch=1", "type=0,vendor=x", "file=/x"):
        assert line(f"{Q} -smbios {other}").machine["qemu_args"] == ["-smbios", other]


@pytest.mark.parametrize(
    ("monitor", "card"),
    [
        ("-mon chardev=charmonitor,id=monitor,mode=control", "tap,fd=33,id=hostnet0,vhost=on,vhostfd=34"),
        (
            '-object {"qom-type":"monitor-qmp","id":"monitor","chardev":"charmonitor"}',
            '{"type":"tap","fd":"33","vhost":true,"vhostfd":"34","id":"hostnet0"}',
        ),
    ],
)
def test_both_forms_of_libvirts_own_lines(monitor: str, card: str) -> None:
    """libvirt 9.0 and 12.9: a monitor is ours, and which network a descriptor led to, the XML alone says."""
    key = '-object {"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/d/master-key.aes"}'
    socket = "-chardev socket,id=charmonitor,path=/tmp/m.sock,server=on,wait=off"
    device = "-device virtio-net-pci,netdev=hostnet0,id=net0,mac=52:54:00:11:22:33"
    result = line(f"qemu-system-x86_64 {key} {socket} {monitor} -netdev {card} {device}")
    assert said(result, "charmonitor", "monitor itself", rank="done")
    assert said(result, "masterKey0", "libvirt", rank="done")
    assert said(result, "-netdev", "virsh dumpxml", rank="lost")
    assert not said(result, "charmonitor", rank="check")
    assert [net["type"] for net in result.machine["net"]] == ["tap"]
