"""Machines written for Proxmox, KubeVirt and Incus: read back they are the same in every field the tool has."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_out import HERE, alike

from tinamou.convert import kinds
from tinamou.convert.assemble import assemble
from tinamou.convert.out import formats
from tinamou.spec import load_spec

STORES = "dir: local\n\tpath /srv\n"
MAC = {"mac": st.just("52:54:00:00:00:01")}
DISK = {
    "readonly": st.just(True),
    "cache": st.sampled_from(["none", "writethrough"]),
    "interface": st.just("scsi"),
    "iothread": st.just(True),
}
BASE = {
    "name": st.sampled_from(["web", "db-1"]),
    "image": st.just("/srv/a.qcow2"),
    "arch": st.just("x86_64"),
    "cpus": st.integers(1, 64),
    "memory": st.sampled_from(["512M", "3G"]),
}
MORE = {
    "boot": st.sampled_from([{"firmware": "uefi"}, {"firmware": "uefi", "secure": True}]),
    "tpm": st.just(True),
}


def read_back(machine: dict, to: str) -> dict:
    text = formats.write(load_spec(machine), HERE, to).text
    draft = kinds.read(text, companion=lambda name: STORES * (name == "storage.cfg"))
    assert kinds.kind_of(text) == to
    return assemble(draft, {}).machine


FORWARDS = (
    ["tcp:192.0.2.1:8080:80"],
    ["udp:[2001:db8::1]:53:53", "tcp:192.0.2.1:8000-8002:80-82"],
    ["tcp:127.0.0.1:8080:80"],
)


def disks(paths: list[str], **options: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(
        st.fixed_dictionaries({"path": st.sampled_from(paths), "format": st.just("qcow2")}, optional=options), max_size=3
    )


@settings(deadline=None)
@given(
    machine=st.fixed_dictionaries(
        BASE,
        optional={
            **MORE,
            "disk": disks(
                ["/srv/b.qcow2", "/dev/vg/x"],
                **DISK,
                discard=st.just(False),
                iops=st.integers(1, 9000),
                bandwidth=st.sampled_from(["10M", "1G"]),
            ),
            "net": st.lists(
                st.one_of(
                    st.fixed_dictionaries({}, optional=MAC),
                    st.fixed_dictionaries(
                        {"type": st.just("bridge"), "bridge": st.just("vmbr0")},
                        optional={**MAC, "mtu": st.just(1400), "queues": st.just(4)},
                    ),
                ),
                max_size=2,
            ),
            "display": st.sampled_from(["vnc", "spice"]),
            "hugepages": st.sampled_from(["auto", "2M", "1G"]),
            "clock": st.sampled_from([{"base": "localtime"}, {"base": "utc"}]),
            "pci": st.just(["0000:0b:00.0"]),
            "devices": st.fixed_dictionaries({}, optional={"balloon": st.just(False), "watchdog": st.just("reset")}),
        },
    )
)
def test_proxmox(machine):
    back = alike(read_back(machine, "proxmox"))
    moved = [{**one, "path": one["path"].replace("/srv/", "/srv/images/100/")} for one in machine.get("disk", [])]
    expected = {**machine, "image": f"/srv/images/100/{machine['name']}.qcow2", "disk": moved}
    assert back["cpu"]["count"] == machine["cpus"] and back["cpu"]["model"] == "host"
    assert back == {**alike(expected), "cpu": back["cpu"]}


@settings(deadline=None)
@given(
    machine=st.fixed_dictionaries(
        BASE,
        optional={
            **MORE,
            "disk": disks(["/srv/b.qcow2"], **DISK),
            "net": st.lists(st.fixed_dictionaries({}, optional=MAC), max_size=1),
            "display": st.just("vnc"),
            "hugepages": st.sampled_from(["2M", "1G"]),
            "seed": st.just({"user_data": "#cloud-config\n{}\n", "hostname": "h"}),
            "devices": st.fixed_dictionaries({}, optional={"balloon": st.just(False), "watchdog": st.just("reset")}),
            "clock": st.just({"base": "utc"}),
        },
    )
)
def test_kubevirt(machine):
    """A disk there is a volume: which file is in it, only the cluster knows."""
    back = alike(read_back(machine, "kubevirt"))
    moved = [{**one, "path": f"disk{number}.qcow2"} for number, one in enumerate(machine.get("disk", []), 1)]
    assert back == alike({**machine, "image": "disk0.qcow2", "disk": moved})


@settings(deadline=None)
@given(
    machine=st.fixed_dictionaries(
        BASE,
        optional={
            **MORE,
            "disk": st.lists(
                st.fixed_dictionaries(
                    {"path": st.just("/srv/b.raw"), "format": st.just("raw")},
                    optional={
                        "readonly": st.just(True),
                        "cache": st.sampled_from(["none", "unsafe"]),
                        "interface": st.just("nvme"),
                    },
                ),
                max_size=3,
            ),
            "net": st.lists(
                st.one_of(
                    st.fixed_dictionaries({}, optional={**MAC, "forward": st.sampled_from(FORWARDS)}),
                    st.fixed_dictionaries(
                        {"type": st.just("bridge"), "bridge": st.just("br0")}, optional={**MAC, "mtu": st.just(1400)}
                    ),
                    st.fixed_dictionaries({"type": st.just("macvtap"), "interface": st.just("eth0")}),
                ),
                max_size=1,
            ),
            "hugepages": st.just("auto"),
            "pci": st.just(["0000:0b:00.0"]),
            "seed": st.just({"user_data": "#cloud-config\n{}\n"}),
            "qemu_args": st.just(["-device", "x,y='a b'"]),
        },
    )
)
def test_incus(machine):
    back = alike(read_back(machine, "incus"))
    for one in (one for one in machine.get("net", ()) if "127.0.0.1" in str(one.get("forward"))):
        del one["forward"]  # nothing of Incus' leads from a loopback address to a machine: a note says so
    expected = alike({**machine, "image": f"{machine['name']}.img"})
    if "boot" not in machine:  # it is said there, for the other is what nothing said means
        expected["boot"]["firmware"] = "bios"
    assert back == expected


@pytest.mark.parametrize(("listen", "connect"), [("0.0.0.0", "0.0.0.0"), ("[::]", "[::]")])
def test_ports_of_every_address_are_narrowed_and_told_once(listen, connect):
    card = {"type": "nic", "name": "eth0", "network": "incusbr0"}
    port = {"type": "proxy", "nat": "true", "listen": f"tcp:{listen}:8000-8001", "connect": f"tcp:{connect}:80-81"}
    machine = {"name": "m", "type": "virtual-machine", "config": {}, "devices": {"eth0": card, "port": port}}
    draft = kinds.read(yaml.safe_dump(machine), companion=lambda _: None)
    assert draft.nets[0]["forward"] == ["tcp:127.0.0.1:8000-8001:80-81"]
    told = [note for note in draft.notes if "8000-8001" in note.value or "8000-8001" in note.fix]
    assert [note.rank for note in told] == ["check", "done"]
    assert f"tcp:{listen}:8000-8001:80-81" in told[0].fix


def test_ports_and_mtu_are_as_incus_takes_them_of_a_machine():
    """By NAT alone, from one address that others reach, to a fixed one of the card; a network's MTU is its own."""
    forward = ["192.0.2.1:8080-8081:80-81", "udp:[2001:db8::1]:53:53", "8080:80", "[::1]:81:81", "0.0.0.0:82:82"]
    machine = load_spec({"name": "m", "image": "a.img", "net": [{"forward": forward, "mtu": 9000}]})
    written = formats.write(machine, HERE, "incus")
    devices = yaml.safe_load(written.text)["devices"]
    assert {name: one for name, one in devices.items() if one["type"] == "proxy"} == {
        "port0-0": {"type": "proxy", "nat": "true", "listen": "tcp:192.0.2.1:8080-8081", "connect": "tcp:0.0.0.0:80-81"},
        "port0-1": {"type": "proxy", "nat": "true", "listen": "udp:[2001:db8::1]:53", "connect": "udp:[::]:53"},
    }
    assert "mtu" not in devices["eth0"]
    told = [(note.rank, str(note.value)) for note in written.notes if "forward" in note.where or "mtu" in note.where]
    ranks = ["lost", *["check"] * 2, *["lost"] * 3]
    assert sorted(told) == sorted(zip(ranks, ["9000", *forward], strict=True))
    assert any("ipv6.address" in note.fix for note in written.notes)


@settings(deadline=None)
@given(
    machine=st.fixed_dictionaries(
        BASE,
        optional={
            "boot": MORE["boot"],
            "disk": st.lists(
                st.one_of(
                    st.fixed_dictionaries({"path": st.sampled_from(["/srv/b.qcow2", "/srv/c.raw"])}),
                    st.just({"size": "3G"}),
                    st.just({"path": "/srv/d.qcow2", "interface": "sata"}),
                ),
                max_size=3,
            ),
            "net": st.lists(st.fixed_dictionaries({}, optional=MAC), max_size=2),
        },
    )
)
def test_ovf(machine):
    """Disks are VMDK files beside the description, in their order; a new one stays a size."""
    back = alike(read_back(machine, "ovf"))
    names = iter(range(1, 9))
    moved = [
        one if "size" in one else {"path": f"{machine['name']}-disk{next(names)}.vmdk"} for one in machine.get("disk", [])
    ]
    expected = {**machine, "image": f"{machine['name']}-disk0.vmdk", "disk": moved}
    assert back == {**alike(expected), "arch": ""}


def test_an_ova_is_read_as_it_was_written(tmp_path):
    """By the commands: its disks have the content of those it was made of, its manifest is checked."""
    for name, kind in (("a.qcow2", "qcow2"), ("b.raw", "raw")):
        (tmp_path / "raw").write_bytes(os.urandom(300_000) + bytes(3 << 20) + os.urandom(44_576))
        subprocess.run(["qemu-img", "convert", "-O", kind, str(tmp_path / "raw"), str(tmp_path / name)], check=True)
    (tmp_path / "m.toml").write_text(f"""name = "web"
image = "{tmp_path}/a.qcow2"
[[disk]]
path = "{tmp_path}/b.raw"
format = "raw"
""")
    env = {**os.environ, "TINAMOU_STATE": str(tmp_path / "s"), "TINAMOU_CACHE": str(tmp_path / "c")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tinamou", "convert", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)

    assert "needs" in run("m.toml", "--to", "ova").stderr or "to a file" in run("m.toml", "--to", "ova").stderr
    made = run("m.toml", "--to", "ova", "-o", "w.ova")
    assert made.returncode == 0, made.stderr
    with tarfile.open(tmp_path / "w.ova") as archive:
        assert archive.getnames() == ["web.ovf", "web.mf", "web-disk0.vmdk", "web-disk1.vmdk"]
    read = run("w.ova", "--import", "--name", "back", "-o", "back.toml")
    assert read.returncode == 0, read.stderr
    image = next((tmp_path / "c").rglob("disk.qcow2"))
    for one, other in ((image, "a.qcow2"), (tmp_path / "back-disk1.qcow2", "b.raw")):
        subprocess.run(["qemu-img", "compare", str(one), str(tmp_path / other)], check=True)
    assert list((tmp_path / "c").rglob("images/back/*/current"))
    sound, there = (tmp_path / "w.ova").read_bytes(), {path.name for path in tmp_path.iterdir()}
    for at in (len(sound) - 20_000, sound.index(b"SHA256(web-disk1.vmdk)= ") + len(b"SHA256(web-disk1.vmdk)= ")):
        data = bytearray(sound)
        data[at] = data[at] ^ 1 if at > 100_000 else ord("1") if data[at] == ord("0") else ord("0")
        (tmp_path / "w.ova").write_bytes(data)
        refused = run("w.ova", "--import", "--name", "other", "-o", "other.toml")
        assert refused.returncode and "web-disk1.vmdk" in refused.stderr and "SHA256" in refused.stderr
        assert {path.name for path in tmp_path.iterdir()} == there
        assert not list((tmp_path / "c").rglob("images/other/*/*"))
    with tarfile.open(tmp_path / "w.ova") as damaged, tarfile.open(tmp_path / "x.ova", "w") as unvouched:
        for member in (one for one in damaged if not one.name.endswith(".mf")):
            unvouched.addfile(member, damaged.extractfile(member))
    assert run("x.ova", "--import", "--name", "fine", "-o", "fine.toml").returncode == 0
    with tarfile.open(tmp_path / "x.ova") as whole:
        disk = whole.getmember("web-disk1.vmdk")
    with (tmp_path / "x.ova").open("r+b") as file:
        file.seek(disk.offset_data + disk.size // 2)
        file.write(bytes(40_000))
    there = {path.name for path in tmp_path.iterdir()}
    assert "failed" in run("x.ova", "--import", "--name", "odd", "-o", "odd.toml").stderr
    assert {path.name for path in tmp_path.iterdir()} == there


def test_the_image_is_copied_for_a_tool_that_has_disks_of_its_own():
    for to in ("kubevirt", "proxmox", "incus"):
        written = formats.write(load_spec({"name": "web", "image": "/srv/a.qcow2"}), HERE, to)
        assert "/srv/a.qcow2" not in written.text
        assert any(note.fix == "qemu-img convert -O qcow2 /srv/a.qcow2 web.qcow2" for note in written.notes), to


def test_a_new_disk_is_one_there_too():
    machine = {"name": "web", "image": "/srv/a.qcow2", "disk": [{"size": "3G"}]}
    back = read_back(machine, "kubevirt")
    assert back["disk"] == [{"size": "3G"}]
    text = formats.write(load_spec(machine), HERE, "proxmox").text
    assert "virtio1: local:3," in text


def test_a_kernel_that_is_started_directly():
    machine = {"image": "none", "boot": {"kernel": "/srv/vmlinuz", "cmdline": "root=/dev/vda x='a b'"}}
    text = formats.write(load_spec(machine), HERE, "proxmox").text
    assert """args: -kernel /srv/vmlinuz -append 'root=/dev/vda x='"'"'a b'"'"''""" in text
    for to in ("kubevirt", "incus"):
        notes = formats.write(load_spec(machine), HERE, to).notes
        assert any(note.where == "boot.kernel" and note.rank == "lost" for note in notes)


def test_a_clock_ahead_of_local_time_is_one_in_libvirt():
    machine = {"image": "/srv/a.qcow2", "os": "windows-11", "clock": {"offset": 60}}
    text = formats.write(load_spec(machine), HERE, "libvirt").text
    assert '<clock offset="variable" adjustment="60" basis="localtime">' in text
