"""Machines written for other tools: read back they are the same, what a tool has not is told, and libvirt starts them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import converted
from virsh_here import virsh_here

from tinamou import late
from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place
from tinamou.errors import SpecError
from tinamou.machine.outward import _own, of_name
from tinamou.snapshots import history
from tinamou.snapshots.history import DiskEntry
from tinamou.spec import load_spec

HERE = Place("/srv/a.qcow2", "qcow2", "x86_64", kvm=True)

disks = st.fixed_dictionaries(
    {"path": st.sampled_from(["/srv/b.qcow2", "/srv/c, d.qcow2"]), "format": st.just("qcow2")},
    optional={
        "readonly": st.just(True),
        "cache": st.sampled_from(["none", "unsafe"]),
        "discard": st.just(False),
        "iops": st.integers(1, 9000),
        "bandwidth": st.sampled_from(["10M", "1G"]),
        "on_full": st.just("error"),
        "interface": st.just("scsi"),
    },
)
nets = st.one_of(
    st.fixed_dictionaries({}, optional={"mac": st.just("52:54:00:00:00:01")}),
    st.fixed_dictionaries({"forward": st.just(["tcp:127.0.0.1:8080:80", "udp:127.0.0.1:53:53"])}),
    st.fixed_dictionaries(
        {"type": st.just("bridge"), "bridge": st.sampled_from(["br0", "virbr0"])}, optional={"mtu": st.just(1400)}
    ),
)
machines = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["web", "db-1"]),
        "image": st.just("/srv/a.qcow2"),
        "arch": st.just("x86_64"),
        "cpus": st.integers(1, 64),
        "memory": st.sampled_from(["512M", "3G"]),
    },
    optional={
        "hugepages": st.sampled_from(["auto", "2M", "1G"]),
        "boot": st.sampled_from([{"firmware": "uefi"}, {"firmware": "uefi", "secure": True}, {"menu": True}]),
        "disk": st.lists(disks, max_size=3),
        "net": st.lists(nets, max_size=2).filter(lambda found: sum("forward" in one for one in found) < 2),
        "display": st.sampled_from(["vnc", "spice"]),
        "tpm": st.just(True),
        "clock": st.just({"base": "localtime"}),
        "pci": st.just(["0000:0b:00.0"]),
    },
)


def alike(machine: dict) -> dict:
    """A machine with what a reader says otherwise about the same: Secure Boot that is off, a card that is virtio."""
    plain = late.asdict(load_spec(machine))
    for net in plain["net"]:
        net["model"] = "virtio" if net["model"] == "auto" else net["model"]
        net["type"] = "auto" if net["type"] in ("user", "passt") else net["type"]
    for disk in plain["disk"]:
        disk["interface"] = "virtio" if disk["interface"] == "auto" else disk["interface"]
        disk["format"] = "auto"
    plain["disk"] = sorted(plain["disk"], key=lambda disk: disk["interface"] != "virtio")  # libvirt has them by bus
    plain["cpu"] |= {"sockets": 0, "cores": 0, "threads": 0}
    return plain


@pytest.mark.parametrize("to", ["libvirt", "script", "qemu"])
@settings(deadline=None)
@given(machine=machines)
def test_read_back_it_is_the_same_machine(to, machine):
    written = formats.write(load_spec(machine), HERE, to)
    back = converted(written.text if to != "qemu" else shlex.split(written.text)).machine
    name = f"{machine['name']}.qcow2"
    image = {"script": "/srv/a.qcow2", "qemu": name, "libvirt": f"/var/lib/libvirt/images/{name}"}[to]
    assert alike(back) == alike(machine | {"image": image}), written.text


@settings(deadline=None)
@given(
    more=st.fixed_dictionaries(
        {},
        optional={
            "smbios": st.fixed_dictionaries(
                {"product": st.just("Box")}, optional={"uuid": st.just("3fa85f64-5717-4562-b3fc-2c963f66afa6")}
            ),
            "devices": st.fixed_dictionaries(
                {},
                optional={
                    "sound": st.sampled_from(["hda", "virtio"]),
                    "watchdog": st.sampled_from(["reset", "poweroff", "inject-nmi"]),
                    "vsock": st.just(7),
                },
            ),
            "display": st.just({"looking_glass": "64M"}),
        },
    )
)
def test_libvirt_has_a_maker_and_small_devices_too(more):
    machine = {"name": "web", "image": "/srv/a.qcow2", "arch": "x86_64", **more}
    back = converted(formats.write(load_spec(machine), HERE, "libvirt").text).machine
    assert alike(back) == alike(machine | {"image": "/var/lib/libvirt/images/web.qcow2"})


def test_what_the_other_tool_has_not_is_told():
    fields = {"limits.pids": 9, "seed.user": "me", "cpu.pin": "auto", "net[0].rate_in": "1Mbit", "disk[0].size": "1G"}
    machine = {
        "image": "/srv/a.qcow2",
        "limits": {"pids": 99},
        "seed": {"user": "me", "password_hash": "$6$hunter2"},
        "cpu": {"count": 2, "pin": "auto"},
        "net": [{"type": "bridge", "network": "lab", "rate_in": "1Mbit"}],
        "disk": [{"size": "1G"}],
    }
    for to in formats.FORMATS:
        notes = formats.write(load_spec(machine), HERE, to).notes
        for path in fields if to in ("libvirt", "qemu", "script") else ("limits.pids", "seed.user", "net[0].rate_in"):
            assert any(note.where == path and note.rank == "lost" for note in notes), (to, path)
        assert not any("hunter2" in str(note) for note in notes)
    with pytest.raises(SpecError, match="no format"):
        formats.write(load_spec(machine), HERE, "nosuch")


@pytest.mark.parametrize("to", ["libvirt", "qemu", "script"])
def test_an_image_others_share_is_written_through_an_overlay(to):
    """The base of the store is never handed out writable; a note says how the overlay is made, where the text does not."""
    written = formats.write(load_spec({"name": "web", "image": "/srv/a.qcow2"}), HERE, to)
    make = "qemu-img create -f qcow2 -b /srv/a.qcow2 -F qcow2 "
    assert "file=/srv/a.qcow2" not in written.text and "/srv/a.qcow2" not in written.text.replace(make, "")
    assert (make in written.text) == (to == "script")
    notes = [note for note in written.notes if note.where == "image" and note.rank == "check"]
    assert [note.fix.startswith(make) for note in notes] == ([] if to == "script" else [True])
    disc = formats.write(load_spec({"image": "/srv/a.iso"}), late.replace(HERE, image="/srv/a.iso", format="iso"), to)
    assert "/srv/a.iso" in disc.text and ".qcow2" not in disc.text


def test_a_machines_own_disk_is_the_one_after_its_snapshots(tmp_path):
    """What lies below is frozen: written, it would change what the snapshots read as."""
    for name in ("disk0.qcow2", "disk0-1.qcow2"):
        (tmp_path / name).touch()
    assert _own(HERE, tmp_path).image == str(tmp_path / "disk0.qcow2")
    entry = DiskEntry("disk0-dev", "disk0-1.qcow2", "qcow2", "disk0.qcow2", "qcow2")
    history.save(tmp_path, history.History(disks={"disk0": entry}))
    assert _own(HERE, tmp_path).image == str(tmp_path / "disk0-1.qcow2")


def test_no_note_shows_a_text_that_may_hold_a_secret():
    machine = {
        "image": "/srv/a.qcow2",
        "os": "windows-10",
        "seed": {"user_data": "#cloud-config\nhunter2: 1\n", "combustion": "#!/bin/sh\nhunter2\n"},
        "smbios": {"oem": ["io.systemd.credential:x=hunter2"]},
        "windows": {
            **{"user": "u", "password_file": "/x", "firstboot": ["net use /user:a hunter2"]},
            "product_key": "HUNT2-AAAAA-AAAAA-AAAAA-AAAAA",
        },
    }
    ignition = {"image": "/srv/a.qcow2", "seed": {"ignition": '{"ignition": {"version": "3.3.0"}, "x": "hunter2"}'}}
    for one in (machine, ignition):
        for to in formats.FORMATS:
            notes = formats.write(load_spec(one), HERE, to).notes
            assert not any("hunt" in str(note).lower() for note in notes)
            assert any("(not shown)" in str(note) for note in notes)


def test_a_script_is_one_a_shell_reads(tmp_path: Path):
    machine = {"image": "/srv/it's, a.qcow2", "disk": [{"path": "/srv/$x, y.qcow2", "format": "qcow2"}]}
    place = late.replace(HERE, image="/srv/it's, a.qcow2")
    (tmp_path / "qemu-system-x86_64").write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    shutil.copy(tmp_path / "qemu-system-x86_64", tmp_path / "qemu-img")
    text = formats.write(load_spec(machine), place, "script").text
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(["sh", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    made, said = run.stdout.splitlines()[:8], run.stdout.splitlines()[8:]
    assert made == ["create", "-f", "qcow2", "-b", "/srv/it's, a.qcow2", "-F", "qcow2", "machine.qcow2"]
    line = shlex.split(formats.write(load_spec(machine), place, "qemu").text)
    assert said == line[1:]
    assert any(word.startswith("file=/srv/$x,, y.qcow2,") for word in said)


@pytest.mark.parametrize("to", ["libvirt", "qemu", "script"])
def test_a_windows_has_what_its_setup_asks_for(to):
    machine = {
        "image": "/srv/a.qcow2",
        "os": "windows-11",
        "display": "vnc",
        "disk": [{"path": "/srv/b.raw", "format": "raw"}],
    }
    written = formats.write(load_spec(machine), HERE, to)
    has = {
        "libvirt": [
            *('firmware="efi"', 'enabled="yes" name="secure-boot"', "<tpm ", '<clock offset="localtime">', 'type="tablet"'),
            *('tickpolicy="catchup"', 'type="e1000e"'),
        ],
        "qemu": ["secboot.fd", "property=secure", "tpm-crb", "base=localtime,driftfix=slew", "e1000e,netdev", "usb-tablet"],
    }
    for text in has["qemu" if to == "script" else to]:
        assert text in written.text
    assert "virtio-blk" not in written.text and written.text.count({"libvirt": 'bus="sata"'}.get(to, "ide-hd")) == 2
    lost = {note.where: str(note) for note in written.notes if note.rank == "lost"}
    assert "enlightenments" in lost["cpu.hyperv"] and "sleep" in lost["os"]
    with_drivers = machine | {"windows": {"drivers": "/srv/v.iso", "user": "u", "password_file": "/srv/p"}}
    assert "ide-hd" not in formats.write(load_spec(with_drivers), HERE, "qemu").text


def test_enlightenments_come_with_what_they_need():
    def written(said, to):
        return formats.write(load_spec({"image": "/srv/a.qcow2", "cpu": {"hyperv": said}}), HERE, to)

    line = written("stimer-direct", "qemu").text
    assert "hv-vpindex=on,hv-time=on,hv-synic=on,hv-stimer=on,hv-stimer-direct=on" in line
    text = written("stimer-direct", "libvirt").text
    for part in ("<vpindex ", "<synic ", "<stimer ", "<direct ", 'name="hypervclock"'):
        assert part in text
    lost = written("crash", "libvirt")
    assert "<hyperv" not in lost.text
    assert any(note.where == "cpu.hyperv" and note.rank == "lost" and "crash" in note.value for note in lost.notes)


def test_a_card_on_vhost_user_has_memory_its_other_side_can_read():
    net = {"type": "vhost-user", "socket": "/run/a,b.sock", "queues": 2}
    spec = load_spec({"image": "/srv/a.qcow2", "net": [net]})
    line = formats.write(spec, HERE, "qemu").text
    assert "memory-backend-memfd" in line and "share=on" in line and "path=/run/a,,b.sock" in line and ",queues=2" in line
    assert '<access mode="shared" />' in formats.write(spec, HERE, "libvirt").text


@pytest.fixture(scope="module")
def virsh(tmp_path_factory):
    """``virsh(words…)`` on a libvirtd of the tests' own."""
    with virsh_here(tmp_path_factory.mktemp("virt"), 120) as run:
        yield run


RICH = [
    {"image": "/srv/a.qcow2", "name": "plain"},
    {
        "image": "/srv/a.qcow2",
        "name": "rich",
        "cpu": {"count": 4, "cores": 2, "sockets": 2, "nodes": 2, "pin": "0-3", "model": "Haswell,+vmx,-tsx"},
        "memory": {"size": "2G", "hugepages": "2M"},
        "boot": {"firmware": "uefi", "secure": True, "menu": True},
        "disk": [
            {"path": "/srv/b.raw", "format": "raw", "interface": "scsi", "cache": "none", "iops": 100},
            {"path": "/srv/c.iso", "interface": "cdrom"},
            {"path": "/dev/vg/x", "format": "raw", "on_full": "error", "queues": 4, "detect_zeroes": "unmap"},
        ],
        "net": [
            {"forward": ["8080:80"]},
            {"type": "bridge", "bridge": "br0", "mtu": 1400, "queues": 2},
            {"type": "ovs", "bridge": "ovs0", "vlan": 7},
            {"type": "tap", "interface": "tap0"},
            {"type": "macvtap", "interface": "eth0"},
            {"type": "vhost-user", "socket": "/run/x.sock", "listen": True},
        ],
        "share": [{"path": "/srv", "readonly": True}],
        "pci": [{"device": "0000:0b:00.0", "rom": False}],
        "display": "spice",
        "tpm": True,
        "clock": {"offset": 60},
        "limits": {"cpu": 1.5},
        "qemu_args": ["-no-hpet"],
    },
    {"image": "/srv/a.qcow2", "name": "windows", "os": "windows-11", "cpu": {"hyperv": "stimer-direct"}, "display": "vnc"},
    {"image": "/srv/a.qcow2", "name": "arm", "arch": "aarch64", "devices": {"balloon": False, "rng": False}},
]  # fmt: skip


REFUSED = [
    ("'backend': 'passt'", r"<portForward .*?</portForward>|<backend type=.passt. ?/>", ""),
    ("virtiofs does not yet support read-only mode", r'(<target dir="share\d+" ?/>)\s*<readonly ?/>', r"\1"),
]
"""What some libvirts say of what is in their schema, and a note tells: Debian 12's has no passt
(debian/Disable-passt-support.patch), and none before 11 a read-only virtio-fs.
"""


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.parametrize("machine", RICH, ids=lambda one: one["name"])
def test_libvirts_own_schema_takes_it(virsh, machine, tmp_path):
    spec = load_spec(machine)
    place = late.replace(HERE, kvm=False, arch=spec.arch or "x86_64")
    (tmp_path / "a.xml").write_text(formats.write(spec, place, "libvirt").text)
    schema = "/usr/share/libvirt/schemas/domain.rng"
    if shutil.which("xmllint"):
        subprocess.run(["xmllint", "--noout", "--relaxng", schema, str(tmp_path / "a.xml")], check=True)
    for _ in range(len(REFUSED) + 1):
        try:
            virsh("define", "--validate", str(tmp_path / "a.xml"))
            break
        except AssertionError as error:
            known = [(pattern, instead) for said, pattern, instead in REFUSED if said in str(error)]
            if not known:
                raise
            [(pattern, instead)] = known
            text = (tmp_path / "a.xml").read_text()
            (tmp_path / "a.xml").write_text(re.sub(pattern, instead, text, flags=re.DOTALL))
    virsh("undefine", "--nvram", spec.name)


@pytest.mark.slow
@pytest.mark.vm
def test_libvirt_starts_it_and_the_guest_answers(virsh, tmp_path):
    (tmp_path / "a.toml").write_text('name = "answering"\nimage = "tiny"\nmemory = "256M"\n')
    spec, place = of_name(tmp_path / "a.toml")
    text = formats.write(spec, late.replace(place, kvm=False), "libvirt").text
    # The daemon of the tests has a /dev of its own, where QEMU's user makes no terminals.
    (tmp_path / "a.xml").write_text(text.replace('<serial type="pty">', '<serial type="null">'))
    virsh("define", "--validate", str(tmp_path / "a.xml"))
    try:
        virsh("start", "answering")
        deadline = time.monotonic() + 120
        while True:
            try:
                said = virsh("qemu-agent-command", "answering", '{"execute": "guest-ping"}')
                break
            except AssertionError:
                assert time.monotonic() < deadline, "the guest did not answer"
                time.sleep(1)
        assert said.strip() == '{"return":{}}'
        virsh("destroy", "answering")
    finally:
        virsh("undefine", "answering")


@pytest.mark.parametrize("to", ["libvirt", "qemu"])
@pytest.mark.parametrize("device", ["10de:1db4", "vf of eth2"])
def test_a_device_by_kind_has_no_words_elsewhere(to: str, device: str) -> None:
    machine = {
        "image": "/srv/a.qcow2",
        "pci": [{"device": device, **({"mac": "52:54:00:00:00:01"} if "vf" in device else {})}],
    }
    written = formats.write(load_spec(machine), HERE, to)
    assert not any(word in written.text for word in ("vfio-pci", "hostdev"))
    told = {note.where: note.rank for note in written.notes}
    assert told["pci[0].device"] == "lost"
    assert ("vf" in device) == any(where.startswith("pci[0].mac") for where in told), told
