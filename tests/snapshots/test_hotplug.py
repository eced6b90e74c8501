"""Disks plugged into a running guest and taken away again; what a stop and a start make of them."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tinamou.errors import ControlError, ImageError, StateError, TinamouError
from tinamou.machine.blocking import Machine
from tinamou.machine.booting import until_up
from tinamou.machine.connected import Connected
from tinamou.machine.disk_changes import listed, resize
from tinamou.machine.disk_plugging import plug, unplug
from tinamou.machine.snapshots import examine, history_of, remove, take
from tinamou.machine.starting import begin_again
from tinamou.parts.disk import DiskSpec
from tinamou.state import machines
from tinamou.system.jail import longer
from tinamou.system.loop_thread import wait_for
from tinamou.units import Size

pytestmark = [pytest.mark.vm]
SIZE = Size.parse("16M")


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    monkeypatch.setenv("TINAMOU_STATE", str(tmp_path / "s"))
    tmp_path.chmod(0o711)


def names(record: machines.Record) -> list[str]:
    return [str(one["name"]) for one in wait_for(listed(record))]


def appears(vm: Machine, device: str) -> None:
    vm.run(f"while [ ! -b /dev/{device} ]; do sleep 0.1; done")


def fill(vm: Machine, device: str, text: str) -> None:
    appears(vm, device)
    vm.run(f"printf '%-4096s' {text} | dd of=/dev/{device} bs=4096 conv=fsync,notrunc 2>/dev/null")


def clean(record: machines.Record) -> list[str]:
    return [f"{one.file}: {one.what}" for one in wait_for(examine(record)).findings if "writing to it" not in one.what]


def bound(vm: Machine) -> int:
    said = re.search(r"^Max file size +(\d+)", Path(f"/proc/{vm.record.pid}/limits").read_text(), re.MULTILINE)
    assert said is not None, "without limit"
    return int(said[1])


def test_a_disk_larger_than_all_before_it_is_written_to_its_end() -> None:
    """QEMU's files are bounded by its largest disk: the bound grows with it, and does not end QEMU where it is reached."""
    end = "dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync,notrunc seek=$(($(blockdev --getsz /dev/vdb) / 8 - 1))"
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        assert 0 < bound(vm) < 4 << 30
        assert wait_for(plug(vm.record, DiskSpec(size=Size.parse("8G"), format="raw"))) == "disk1"
        appears(vm, "vdb")
        vm.run(end)
        wait_for(resize(vm.record, "disk1", Size.parse("12G")))
        vm.run("while [ $(blockdev --getsz /dev/vdb) != 25165824 ]; do sleep 0.1; done")
        vm.run(end)
        longer(vm.record.pid, 4 << 30)
        assert vm.run(f"{end} 2>/dev/null", check=False).status != 0
        vm.run("true")


def test_plugged_in_written_snapshot_and_taken_away(tmp_path: Path) -> None:
    shared = tmp_path / "mine.raw"
    shared.write_bytes(b"mine\0\xff" * 1024 + bytes(8 << 20))
    key = tmp_path / "key"
    key.write_text("passphrase")
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        appears(vm, "vda")
        one = wait_for(plug(vm.record, DiskSpec(size=SIZE, iothread=True, iops=500)))
        two = wait_for(plug(machines.find("m"), DiskSpec(size=SIZE, interface="scsi")))
        three = wait_for(plug(machines.find("m"), DiskSpec(path=str(shared), readonly=True)))
        four = wait_for(plug(machines.find("m"), DiskSpec(size=SIZE, key=str(key))))
        assert (one, two, three, four) == ("disk1", "disk2", "disk3", "disk4")
        with pytest.raises(ControlError, match="nothing more can be plugged in"):
            wait_for(plug(machines.find("m"), DiskSpec(size=SIZE)))
        fill(vm, "vdb", "one")
        fill(vm, "sda", "two")
        appears(vm, "vdd")
        assert vm.run("head -c 4 /dev/vdc").text == "mine"
        wait_for(unplug(machines.find("m"), four))
        wait_for(unplug(machines.find("m"), three))
        assert shared.exists()
        wait_for(take(machines.find("m"), "kept"))
        fill(vm, "sda", "later")
        wait_for(unplug(machines.find("m"), two))
        assert names(machines.find("m")) == ["disk0", "disk1"]
        wait_for(take(machines.find("m"), "without"))
        assert clean(machines.find("m")) == []
        with pytest.raises(StateError, match="slot"):
            wait_for(unplug(machines.find("m"), "disk0"))
    record = machines.find("m")
    left = sorted(path.name for path in Path(record.directory).glob("disk*"))
    assert [name for name in left if name.startswith("disk2")] == ["disk2.qcow2"]
    assert not [name for name in left if name.startswith("disk4")]
    assert clean(record) == []

    async def again() -> str:
        started = await asyncio.to_thread(begin_again, record, dies_with_parent=True)
        machine = Connected(started.record, started.plan)
        await until_up(machine, answer=False)
        text = await machine.run("head -c 3 /dev/vdb; ls /dev/sd* 2>/dev/null", check=False)
        await asyncio.to_thread(lambda: asyncio.run(unplug(machines.find("m"), "disk1")))
        await machine.end()
        return text.text

    assert wait_for(again()) == "one"
    record = machines.find("m")
    assert names(record) == ["disk0"]
    wait_for(remove(record, ["kept", "without"]))
    assert sorted(history_of(record).disks) == ["disk0"]
    assert not list(Path(record.directory).glob("disk[12]*"))
    assert clean(record) == []


def test_a_machine_that_is_off_has_it_at_its_next_start() -> None:
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        vm.run("true")
    assert wait_for(plug(machines.find("m"), DiskSpec(size=SIZE))) == "disk1"
    assert machines.find("m").spec["disk"][1]["port"] == 1
    wait_for(unplug(machines.find("m"), "disk0"))

    async def again() -> str:
        started = await asyncio.to_thread(begin_again, machines.find("m"), dies_with_parent=True)
        machine = Connected(started.record, started.plan)
        await until_up(machine, answer=False)
        text = await machine.run("ls /dev/vd?")
        await machine.end()
        return text.text

    assert wait_for(again()).split() == ["/dev/vda"]
    assert names(machines.find("m")) == ["disk1"]


def test_what_was_written_to_a_file_of_the_users_is_not_lost_unasked(tmp_path: Path) -> None:
    mine = tmp_path / "mine.raw"
    mine.write_bytes(b"\xff\0" * (4 << 20))
    with Machine("tiny", keep=True, name="m", disk=[{"path": str(mine), "port": 1}], net=[]) as vm:
        fill(vm, "vda", "before")
        wait_for(take(machines.find("m"), "one"))
        fill(vm, "vda", "after")
        with pytest.raises(StateError, match="first snapshot"):
            wait_for(unplug(machines.find("m"), "disk0"))
        wait_for(unplug(machines.find("m"), "disk0", force=True))
    assert mine.read_bytes().startswith(b"before")
    assert not machines.find("m").spec.get("disk")


def test_what_cannot_be_plugged_in_leaves_nothing(tmp_path: Path) -> None:
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        vm.run("true")
        before = machines.find("m").spec
        with pytest.raises(ImageError, match="does not exist"):
            wait_for(plug(machines.find("m"), DiskSpec(path=str(tmp_path / "none.qcow2"))))
        with pytest.raises(TinamouError):
            wait_for(plug(machines.find("m"), DiskSpec(size=SIZE, aio="native", cache="writeback")))
        assert machines.find("m").spec == before
        assert names(machines.find("m")) == ["disk0"]
        assert sorted(path.name for path in Path(vm.record.directory).glob("disk*")) == ["disk0.qcow2"]
        assert wait_for(plug(machines.find("m"), DiskSpec(size=SIZE))) == "disk1"
        appears(vm, "vdb")
        with pytest.raises(StateError, match="no disk disk7"):
            wait_for(unplug(machines.find("m"), "disk7"))
    with Machine("tiny", name="t", net=[]) as vm:
        vm.run("true")
        with pytest.raises(ControlError, match="without any"):
            wait_for(plug(machines.find("t"), DiskSpec(size=SIZE)))
