"""Disks under a real guest: snapshots while it writes, back in time, every kind of device, backups that start."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tinamou.control import connect_qmp
from tinamou.control.answers import records
from tinamou.errors import ImageError, StateError
from tinamou.machine import disk_changes
from tinamou.machine.backups import back_up, drill, restore
from tinamou.machine.blocking import Machine
from tinamou.machine.booting import until_up
from tinamou.machine.chains import existing_chains
from tinamou.machine.connected import Connected
from tinamou.machine.disk_plugging import plug
from tinamou.machine.life import command, state_of
from tinamou.machine.snapshots import examine, flatten_all, go_back, history_of, remove, take
from tinamou.parts.disk import DiskSpec
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of
from tinamou.system.iso import build_iso
from tinamou.system.loop_thread import wait_for
from tinamou.units import Size

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    monkeypatch.setenv("TINAMOU_STATE", str(tmp_path / "s"))
    tmp_path.chmod(0o711)


def write(vm: Machine, text: str) -> None:
    vm.run(f"printf '%-4096s' {text} | dd of=/dev/vda bs=4096 conv=fsync,notrunc 2>/dev/null")


def reads(vm: Machine) -> str:
    return vm.run("dd if=/dev/vda bs=4096 count=1 2>/dev/null").text.split()[0]


def test_snapshots_of_a_guest_and_back(tmp_path: Path) -> None:
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        for text in ("one", "two", "three"):
            write(vm, text)
            taken = wait_for(take(vm.record, text, quiesce=10.0 if text == "two" else 0.0))
            assert taken.snapshot.quiesced == (text == "two")
        write(vm, "four")
        wait_for(remove(vm.record, ["two"]))
        assert reads(vm) == "four"
        assert wait_for(examine(vm.record)).findings[0].severity == "note"
        with pytest.raises(StateError, match="running machine"):
            wait_for(go_back(vm.record, "one"))
    record = machines.find("m")
    wait_for(go_back(record, "one"))
    wait_for(flatten_all(record))
    assert [one.name for one in history_of(record).snapshots] == ["one", "three"]
    assert [one for one in wait_for(examine(record)).findings if one.severity != "note"] == []

    from tinamou.machine.starting import begin_again

    async def again() -> str:
        started = begin_again(record, dies_with_parent=True)
        machine = Connected(started.record, started.plan)
        await until_up(machine, answer=False)
        text = await machine.run("head -c 3 /dev/vda")
        await machine.end()
        return text.text

    assert wait_for(again()) == "one"


def test_every_kind_of_disk(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("passphrase")
    (tmp_path / "shared.raw").write_bytes(bytes(8 << 20))
    kinds: list[dict[str, object]] = [
        {"size": "16M", "iops": 500, "detect_zeroes": "unmap"},
        {"size": "16M", "interface": "nvme"},
        {"size": "16M", "interface": "scsi", "iothread": True, "queues": 2},
        {"size": "16M", "cache": "none", "aio": "native", "bandwidth": "50M"},
        {"size": "16M", "aio": "io_uring", "cache": "writethrough"},
        {"path": str(tmp_path / "shared.raw"), "readonly": True},
    ]
    with Machine("tiny", disk=kinds, net=[]) as vm:
        wait_for(disk_changes.resize(vm.record, "disk0", Size(32 << 20)))
        vm.run("while [ $(cat /sys/block/vda/size) != 65536 ]; do sleep 0.1; done")
        wait_for(disk_changes.limit(vm.record, "disk0", iops=100))
        wait_for(disk_changes.limit(vm.record, "disk1", iops=100))
        wait_for(take(vm.record, "all"))
        write(vm, "after")
        assert reads(vm) == "after"
        with pytest.raises(StateError, match="cut off"):
            wait_for(disk_changes.resize(vm.record, "disk0", Size(16 << 20)))


def test_a_disc_is_changed_while_the_guest_runs(tmp_path: Path) -> None:
    async def open_files(directory: str) -> int:
        async with await connect_qmp(directory) as session:
            return len(records(await session.execute("query-fdsets")))

    for name in ("FIRST_", "SECOND"):
        build_iso(tmp_path / f"{name}.iso", name, {"word": name})
    read = "sleep 0.5; dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | tail -c +41 | head -c 6"
    with Machine("tiny", disk=[{"path": str(tmp_path / "FIRST_.iso"), "interface": "cdrom"}], net=[]) as vm:
        vm.run("modprobe sr_mod; while [ ! -b /dev/sr0 ]; do sleep 0.1; done")
        assert vm.run(read).text == "FIRST_"
        before = wait_for(open_files(vm.record.directory))
        for name in ("SECOND", "", "FIRST_"):
            wait_for(disk_changes.change_disc(vm.record, "disk0", tmp_path / f"{name}.iso" if name else None))
            assert vm.run(read).text == name
            [drive] = wait_for(disk_changes.listed(vm.record))
            assert (drive["name"], Path(str(drive["file"])).stem, drive["files"]) == ("disk0", name, int(bool(name)))
        assert wait_for(open_files(vm.record.directory)) == before
        with pytest.raises(StateError, match="not an optical drive"):
            wait_for(disk_changes.change_disc(vm.record, "disk7", None))


def test_an_encrypted_disk_stays_encrypted_under_snapshots(tmp_path: Path) -> None:

    from tinamou.machine.starting import begin_again

    (tmp_path / "key").write_text("passphrase")
    words = ("plain-first", "plain-second", "plain-third", "plain-fourth")
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M", "key": str(tmp_path / "key")}], net=[]) as vm:
        for word in words[:3]:
            write(vm, word)
            wait_for(take(vm.record, word))
        assert reads(vm) == "plain-third"
        wait_for(remove(vm.record, ["plain-second"]))
        wait_for(flatten_all(vm.record))
        write(vm, "plain-fourth")
        assert [one for one in wait_for(examine(vm.record)).findings if one.severity != "note"] == []
        with pytest.raises(StateError, match="encrypted and cannot be backed up"):
            wait_for(back_up(vm.record, tmp_path / "shelf"))
    record = machines.find("m")
    with pytest.raises(StateError, match="encrypted"):
        wait_for(flatten_all(record))
    assert [one for one in wait_for(examine(record)).findings if one.severity != "note"] == []
    wait_for(go_back(record, "plain-first"))
    files = sorted(Path(record.directory).glob("disk0*.qcow2"))
    assert len(files) > 2
    for file in files:
        assert not [word for word in words if word.encode() in file.read_bytes()]
        command = ["qemu-img", "info", "--output=json", str(file)]
        assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["encrypted"]

    async def again() -> str:
        started = begin_again(record, dies_with_parent=True)
        machine = Connected(started.record, started.plan)
        await until_up(machine, answer=False)
        text = await machine.run("head -c 11 /dev/vda")
        await machine.end()
        return text.text

    assert wait_for(again()) == "plain-first"
    with pytest.raises(ImageError, match="is encrypted"):
        existing_chains(load_spec({"disk": [{"size": "16M"}]}), image_of(record), Path(record.directory))


@pytest.mark.root
@pytest.mark.parametrize("on_full", ["pause", "error"])
def test_a_full_host_pauses_the_guest_or_fails_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_full: str
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", small], check=True)
    monkeypatch.setenv("TINAMOU_STATE", str(small / "s"))
    try:
        with Machine("tiny", disk=[{"size": "64M", "on_full": on_full}], net=[]) as vm:
            write(vm, "before")
            wait_for(take(vm.record, "one"))
            fill = "dd if=/dev/urandom of=/dev/vda bs=1M seek=1 count=40 conv=fsync,notrunc 2>/tmp/said; echo $? >/tmp/over"
            vm.run(f"rm -f /tmp/over; ({fill}) >/dev/null 2>&1 &")
            if on_full == "error":
                assert vm.run("while [ ! -s /tmp/over ]; do sleep 0.1; done; cat /tmp/over").text.strip() == "1"
                assert wait_for(state_of(vm.record)) == "running"
            else:
                while wait_for(state_of(vm.record)) != "io-error":
                    time.sleep(0.1)
                subprocess.run(["mount", "-o", "remount,size=96m", small], check=True)
                wait_for(command(vm.record, "cont"))
                assert vm.run("while [ ! -s /tmp/over ]; do sleep 0.1; done; cat /tmp/over").text.strip() == "0"
            assert reads(vm) == "before"
            assert [one for one in wait_for(examine(vm.record)).findings if one.severity == "error"] == []
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_drill_starts_a_backup_from_an_nbd_server(tmp_path: Path) -> None:
    socket, file = tmp_path / "nbd.sock", tmp_path / "export.raw"
    file.write_bytes(bytes(16 << 20))
    server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-x", "disk0", "-k", str(socket), str(file)])
    url = f"nbd+unix:///{{disk}}?socket={socket}"
    try:
        with Machine("tiny", disk=[{"size": "16M"}], net=[]) as vm:
            for text, kind in (("one", "full"), ("two", "incremental")):
                write(vm, text)
                assert wait_for(back_up(vm.record, tmp_path / "shelf", nbd=url)).kind == kind
        assert file.read_bytes()[:3] == b"two"
        assert "Linux" in wait_for(drill(tmp_path / "shelf")).said
        with file.open("r+b") as export:
            export.write(b"X")
        with pytest.raises(ImageError, match="damaged"):
            wait_for(drill(tmp_path / "shelf"))
        assert machines.machines() == []
    finally:
        server.terminate()
        server.wait()


def test_an_older_backup_is_restored_as_the_machine_was_then(tmp_path: Path) -> None:
    with Machine("tiny", keep=True, name="m", disk=[{"size": "16M"}], net=[]) as vm:
        wait_for(back_up(vm.record, tmp_path / "shelf"))
        wait_for(plug(vm.record, DiskSpec(size=Size(8 << 20))))
        wait_for(back_up(machines.find("m"), tmp_path / "shelf"))
    for number, name in ((1, "older"), (2, "newer")):
        restored = wait_for(restore(tmp_path / "shelf", name, number=number))
        assert len(load_spec(restored.spec).disk) == number
        assert sorted(history_of(restored).disks) == []
        assert len(list(Path(restored.directory).glob("disk*.qcow2"))) == number
        assert [one for one in wait_for(examine(restored)).findings if one.severity != "note"] == []


def test_a_drill_starts_the_backup_and_fails_for_a_damaged_one(tmp_path: Path) -> None:
    with Machine("tiny", disk=[{"size": "16M"}], net=[]) as vm:
        for text in ("one", "two"):
            write(vm, text)
            wait_for(back_up(vm.record, tmp_path / "shelf"))
    drilled = wait_for(drill(tmp_path / "shelf"))
    assert "Linux" in drilled.said
    assert machines.machines() == []
    file = next((tmp_path / "shelf" / "0001").glob("disk0*.qcow2"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ImageError, match=str(file)):
        wait_for(drill(tmp_path / "shelf"))
    assert machines.machines() == []
