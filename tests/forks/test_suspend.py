"""Suspended machines: saved to disk, everything given back, taken up where they were; refused and put right by name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import call

from tinamou import Machine
from tinamou.errors import StateError, TinamouError
from tinamou.machine import life
from tinamou.machine.connected import Connected
from tinamou.machine.reconcile import reconcile
from tinamou.machine.starting import begin_again
from tinamou.probe.qemu import find_binary
from tinamou.state import machines
from tinamou.state.record import Record
from tinamou.system.loop_thread import wait_for
from tinamou.units import Size

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture
def kept() -> Iterator[Machine]:
    """A machine that stays."""
    with Machine(name="kept", keep=True, disks=[{"size": "64M"}]) as machine:
        yield machine
        machine.kill()
    life.remove(machines.find("kept"), force=True)


def state() -> str:
    return wait_for(life.state_of(machines.find("kept")))


@pytest.mark.usefixtures("every_qemu")
def test_it_goes_on_where_it_was_with_the_clock_right(kept: Machine) -> None:
    kept.run("echo here >/tmp/x; echo disk >/dev/vda; sleep 1000 >/dev/null 2>&1 &")
    boot = kept.run("cat /proc/sys/kernel/random/boot_id; cat /sys/class/net/eth0/address; pidof sleep").text
    pid = kept.record.pid
    kept.suspend()
    assert not Path(f"/proc/{pid}").exists()
    assert state() == "suspended"
    assert not list(kept.record.file(".").glob("*.sock"))
    time.sleep(3)
    kept.resume()
    assert state() == "running"
    after = kept.run("cat /proc/sys/kernel/random/boot_id; cat /sys/class/net/eth0/address; pidof sleep").text
    assert after == boot
    assert kept.run("cat /tmp/x; head -n 1 /dev/vda").text == "here\ndisk"
    before, told, after = time.time(), int(kept.run("date +%s").text), time.time()
    assert before - 2 <= told <= after + 2
    kept.run("echo more >>/tmp/x")
    kept.suspend()
    kept.resume()
    assert kept.run("cat /tmp/x").text == "here\nmore"


@pytest.mark.qemu11
def test_a_later_qemu_takes_it_up(kept: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the board it has, with what was plugged in meanwhile, and back."""
    board, boot = kept.record.machine_type, kept.run("cat /proc/sys/kernel/random/boot_id").text
    kept.suspend()
    with monkeypatch.context() as chosen:
        chosen.setenv("TINAMOU_QEMU", os.environ["TINAMOU_QEMU11"])
        kept.resume()
        assert (kept.record.machine_type, kept.record.binary) == (board, find_binary("x86_64"))
        kept.disks.add(size=Size.parse("64M"))
        kept.suspend()
    kept.resume()
    assert kept.run("cat /proc/sys/kernel/random/boot_id").text == boot


def test_what_a_suspended_machine_refuses(kept: Machine) -> None:
    kept.suspend()
    record = machines.find("kept")
    with pytest.raises(StateError, match="kept is suspended"):
        begin_again(record)
    with pytest.raises(StateError, match="kept is suspended"):
        life.running("kept")
    for words in (("stop",), ("pause",), ("snapshot", "create"), ("checkpoint",), ("suspend",)):
        done = call(*words, "kept")
        assert (done.returncode, "tinamou resume kept" in done.stderr) == (118, True), done.stderr
    assert '"suspended"' in call("ls", "--json").stdout
    assert call("resume", "kept").returncode == 0
    assert state() == "running"
    assert call("pause", "kept").returncode == 0
    assert state() == "paused"
    assert call("resume", "kept").returncode == 0
    assert state() == "running"
    assert call("suspend", "kept").returncode == 0
    assert call("kill", "kept").returncode == 0
    assert state() == "stopped"
    assert not record.file("suspended").exists()


def test_throw_away_machines_are_not_suspended() -> None:
    with Machine() as machine:
        with pytest.raises(StateError, match="thrown away"):
            machine.suspend()
        assert machine.run("echo on").text == "on"


def test_damage_is_refused_and_the_machine_stays_suspended(kept: Machine) -> None:
    kept.suspend()
    file = kept.record.file("suspended/state.zst")
    whole = file.read_bytes()
    stamp = file.stat().st_mtime_ns
    file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    os.utime(file, ns=(stamp, stamp))
    with pytest.raises(StateError, match=r"the suspended state of kept cannot be loaded\n.*state\.zst.*SHA-256"):
        kept.resume()
    assert state() == "suspended"
    file.write_bytes(whole)
    os.utime(file, ns=(stamp, stamp))
    kept.resume()
    kept.suspend()
    kept.record.file("suspended/checkpoint.json").write_text("{")
    with pytest.raises(StateError, match="the suspended state of kept is damaged"):
        kept.resume()
    assert state() == "suspended"


def test_a_failed_load_leaves_it_suspended(kept: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.run("echo here >/tmp/x")
    kept.suspend()
    with monkeypatch.context() as patched:
        patched.setattr("tinamou.machine.portable.stream.load", _fails)
        with pytest.raises(TinamouError, match="no"):
            kept.resume()
    assert state() == "suspended"
    assert reconcile() == []
    kept.resume()
    assert kept.run("cat /tmp/x").text == "here"


async def _fails(*_: object) -> None:
    from tinamou.errors import ControlError

    raise ControlError("no")


def test_a_suspension_cut_short_is_put_right(kept: Machine) -> None:
    record = kept.record
    dead = subprocess.Popen(["true"])
    dead.wait()
    record.file("checkpointing").write_text(f"{dead.pid} 1")
    record.file("suspended").mkdir()
    record.file("suspended/state.zst").write_bytes(b"x")
    kept.pause()
    assert [line for line in reconcile() if "it runs on" in line]
    assert not record.file("suspended").exists()
    assert kept.run("echo on").text == "on"


def test_a_qemu_that_outlived_its_suspension_is_ended(kept: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suspender was killed between the entry and the end of QEMU: its guest must not run on."""
    kept.run("echo here >/tmp/x")
    released(kept)
    with monkeypatch.context() as patched:
        patched.setattr("tinamou.machine.suspending.quit", _fails)
        patched.setattr("tinamou.machine.suspending.wait_gone", lambda *_: True)
        patched.setattr("tinamou.machine.suspending.end_machine", lambda *_: [])
        from tinamou.machine.suspending import suspend

        wait_for(suspend(Connected.visiting(machines.find("kept"))))
    assert machines.find("kept").running
    assert [line for line in reconcile() if "kept" in line]
    assert not machines.find("kept").running
    assert state() == "suspended"
    assert call("resume", "kept").returncode == 0
    assert call("exec", "kept", "--", "cat", "/tmp/x").stdout == "here\n"


def released(machine: Machine) -> Record:
    """The machine is left to itself."""
    wait_for(machine._machine.release())
    return machine.record


def test_no_space_leaves_it_running(kept: Machine) -> None:
    folder = kept.record.file("suspended")
    folder.mkdir()
    import shutil

    real = shutil.rmtree
    assert os.system(f"mount -t tmpfs -o size=8M tm-small {folder}") == 0
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("tinamou.machine.suspending.shutil.rmtree", lambda *_, **__: None)
            patched.setattr(Path, "mkdir", lambda *_, **__: None)
            with pytest.raises(StateError, match="cannot be written") as refused:
                kept.suspend()
        assert "No space left" in refused.value.why
        assert kept.run("echo on").text == "on"
    finally:
        os.system(f"umount {folder}")
        real(folder)


def test_another_qemu_is_refused_where_the_board_has_no_version(kept: Machine) -> None:
    kept.suspend()
    from tinamou.snapshots.checkpoint import write
    from tinamou.snapshots.orphans import suspended

    saved = suspended(kept.record)
    assert saved is not None
    write(dataclasses.replace(saved, version="6.2.0", plan={**saved.plan, "machine_type": "q35"}))
    with pytest.raises(StateError, match=r"q35.*has no version: .* than in 6\.2\.0, which saved the state"):
        kept.resume()
    assert state() == "suspended"
    write(dataclasses.replace(saved, version="6.2.0"))
    kept.resume()
    assert state() == "running"


def test_devices_that_cannot_be_saved_are_refused_with_qemus_reason() -> None:
    """Shared memory stands for a device of the host handed to the guest: QEMU blocks both in the same way."""
    shared = ["-object", "memory-backend-ram,id=shm,size=1M,share=on", "-device", "ivshmem-plain,memdev=shm,id=mine"]
    with Machine(name="kept", keep=True, qemu_args=shared) as machine:
        for save in (machine.suspend, lambda: machine.checkpoint(kind="portable")):
            with pytest.raises(StateError, match=r"cannot be saved\n.*ivshmem"):
                save()
        assert machine.run("echo on").text == "on"
        machine.kill()
    life.remove(machines.find("kept"), force=True)
