"""Checkpoints and forks of real guests: distinct, whole, refused when something differs, and gone without trace."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import memory_exists, memory_of
from typed import eventually

from tinamou import Machine
from tinamou.errors import StateError, TinamouError
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import fork_many
from tinamou.machine.reconcile import reconcile
from tinamou.probe.qemu import find_binary
from tinamou.snapshots.checkpoint import Checkpoint, read, write
from tinamou.snapshots.hardware import differences
from tinamou.snapshots.resting import discard
from tinamou.system.loop_thread import wait_for

pytestmark = pytest.mark.vm

READY = "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done"
WHO = f"{READY}; hostname; cat /etc/machine-id; cat /sys/class/net/eth0/address; head -c 32 /dev/urandom | base64"


@pytest.fixture
def source() -> Iterator[Machine]:
    """A forkable machine that runs."""
    with Machine(forkable=True) as machine:
        yield machine


@pytest.fixture
def checkpoint(source: Machine) -> Iterator[Checkpoint]:
    """A checkpoint of it."""
    taken = source.checkpoint("moment")
    yield taken
    discard(Path(taken.directory))


def restored(checkpoint: Checkpoint, count: int = 1) -> None:
    """Start forks and end them again: for what must be refused."""
    for one in wait_for(fork_many(checkpoint, count)):
        Machine.around(AsyncMachine.around(Connected.of_fork(one))).kill()


@pytest.mark.usefixtures("every_qemu")
@pytest.mark.parametrize("cpus", [1, 2])
def test_forks_are_themselves(cpus: int) -> None:
    with Machine(forkable=True, cpus=cpus) as source:
        source.run("echo kept > /tmp/before")
        with source.fork(3) as forks:
            said = [one.run(WHO).text.split("\n") for one in [source, *forks]]
            for one in (*map(set, zip(*said[1:], strict=True)),):
                assert len(one) == 3
            assert [lines[0] for lines in said] == [source.name, *(one.name for one in forks)]
            assert not set(said[0]) & {word for lines in said[1:] for word in lines}
            assert [one.run("cat /tmp/before; nproc").text for one in forks] == [f"kept\n{cpus}"] * 3
            forks[0].run("echo changed > /tmp/before")
            assert [one.run("cat /tmp/before").text for one in (forks[1], source)] == ["kept", "kept"]
            assert forks[1].run("ping -c 1 -W 60 10.0.2.2 >/dev/null; echo $?").text == "0"
        with source.fork() as another:
            assert another.run("cat /tmp/before").text == "kept"


def test_a_fork_can_be_reset(source: Machine) -> None:
    with source.fork() as fork:
        fork.reset()
        assert fork.run("hostname").text == fork.name


def test_the_clock_is_right_and_moves_on(source: Machine) -> None:
    with source.fork() as fork:
        before, there, after = (int(one.run("date +%s").text) for one in (source, fork, source))
        assert before - 2 <= there <= after + 2


def test_commands_in_a_fork_are_those_of_any_machine(source: Machine) -> None:
    with source.fork() as fork:
        done = fork.run(["sh", "-c", "cat; echo no >&2; exit 7"], input=b"x" * 300_000, check=False)
        assert (done.status, len(done.stdout), done.stderr) == (7, 300_000, b"no\n")
        assert fork.run("kill -9 $$", check=False).status == -9
        assert {"A=b", "HOME=/root", "USER=root"} <= set(fork.run(["env"], env={"A": "b"}).text.split("\n"))
        with pytest.raises(TinamouError, match="could not start"):
            fork.run(["no-such-program"])
        with pytest.raises(TinamouError, match="did not end within"):
            fork.run("sleep 60", timeout=0.3)
        assert fork.run("head -c 3000000 /dev/zero | wc -c").text == "3000000"
        assert len(fork.run("head -c 3000000 /dev/zero").stdout) == 3_000_000
        assert fork.run("sleep 100 & echo left").text == "left"


def test_what_runs_in_the_parent_runs_on_in_the_fork() -> None:
    heard: list[bytes] = []
    script = "while ! [ -e /tmp/stop ]; do echo noise; sleep 0.05; done; echo ended >/tmp/ended"
    with Machine(forkable=True) as machine, ThreadPoolExecutor(1) as pool:
        running = pool.submit(machine.stream, script, heard.append)
        while not heard:
            time.sleep(0.05)
        with machine.fork() as fork:
            until = "touch /tmp/stop; until [ -e /tmp/ended ]; do sleep 0.05; done; cat /tmp/ended"
            assert fork.run(until, timeout=60).text == "ended"
            assert machine.run("ls /tmp/ended", check=False).status == 1
        assert not running.done()
        machine.run("touch /tmp/stop")
        assert running.result(timeout=60) == 0


def test_a_checkpoint_outlives_its_machine(source: Machine, checkpoint: Checkpoint) -> None:
    source.kill()
    restored(checkpoint, 2)


def test_a_machine_that_is_not_forkable_says_how_to_make_it_so() -> None:
    with Machine() as machine:
        with pytest.raises(StateError, match="cannot be checkpointed in an instant") as refused:
            machine.checkpoint(kind="instant")
        assert "forkable" in refused.value.fix
        assert machine.run("echo on").text == "on"


def test_what_differs_is_refused_and_named(source: Machine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match="there is a checkpoint moment already"):
        source.checkpoint("moment")
    plan = checkpoint.loaded_plan()
    fewer = dataclasses.replace(plan, elements=tuple(e for e in plan.elements if e.id != "rng0-dev"))
    assert [line for line in differences(plan, fewer) if "virtio-rng-pci" in line]
    changed = {**checkpoint.plan, "elements": [e for e in checkpoint.plan["elements"] if e["props"].get("id") != "rng0-dev"]}
    with pytest.raises(StateError, match="device arguments"):
        restored(dataclasses.replace(checkpoint, plan=changed))
    monkeypatch.setenv("TINAMOU_QEMU", "/bin/true")
    with pytest.raises(StateError, match="another binary"):
        restored(checkpoint)
    monkeypatch.delenv("TINAMOU_QEMU")
    restored(checkpoint)


def test_a_damaged_device_state_ends_in_an_error_and_nothing_left(checkpoint: Checkpoint) -> None:
    state = Path(checkpoint.state.path)
    state.write_bytes(state.read_bytes()[:4000])
    from tinamou.snapshots.checkpoint import File

    with pytest.raises(TinamouError, match=r"ended before the machine ran|QEMU exited, or was killed"):
        restored(dataclasses.replace(checkpoint, state=File.of(state)), 2)


def test_no_room_for_memory_leaves_the_machine_running(source: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinamou.snapshots.branching.why_not", lambda: "a test says so")
    monkeypatch.setattr("tinamou.probe.topology.kib", lambda _text, _name: 1 << 20)
    with pytest.raises(StateError, match="cannot be copied") as refused:
        source.checkpoint("big")
    assert "1 MiB left" in refused.value.why
    monkeypatch.undo()
    assert source.run("echo on").text == "on"
    assert [one.name for one in every() if one.machine == source.name] == []


def test_forks_run_on_when_their_checkpoint_is_removed(checkpoint: Checkpoint) -> None:
    forks = [Machine.around(AsyncMachine.around(Connected.of_fork(one))) for one in wait_for(fork_many(checkpoint, 2))]
    discard(Path(checkpoint.directory))
    try:
        assert [one.run("dd if=/dev/zero of=/tmp/x bs=1M count=20 2>/dev/null; echo on").text for one in forks] == ["on"] * 2
    finally:
        for one in forks:
            one.kill()


def test_a_save_cut_short_is_put_right(source: Machine) -> None:
    record = source.record
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    record.file("checkpointing").write_text(f"{gone} 1")
    write_half = Path(os.environ["TINAMOU_STATE"]) / "checkpoints" / "half"
    write_half.mkdir(parents=True)
    (write_half / "lock").touch()
    source.pause()
    said = reconcile()
    assert [line for line in said if "it runs on" in line]
    assert [line for line in said if "remains of checkpoint half" in line]
    assert source.run("echo on").text == "on"


def test_fleeting_checkpoints_go_with_their_process(source: Machine, checkpoint: Checkpoint) -> None:
    memory = memory_of(checkpoint.name)
    source.kill()
    write(dataclasses.replace(checkpoint, owner=(os.getpid(), 1)))
    reconcile()
    assert read(Path(checkpoint.directory)) is None
    eventually(lambda: not memory_exists(memory), "the end of its memory")


def test_a_killed_owner_leaves_nothing(state: Path) -> None:
    """Forks and memory die with the process that made them; the next command removes what is left of their files."""
    program = """
import time
from tinamou import Machine
with Machine(forkable=True) as vm:
    forks = vm.fork(2)
    print(forks[0].record.parent, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        memory = memory_of(name)
        process.send_signal(signal.SIGKILL)
    eventually(lambda: reconcile() is not None and not list((state / "machines").iterdir()), "the end of what it made")
    eventually(lambda: not memory_exists(memory), "the end of their memory")


def test_a_machine_whose_qemu_was_replaced_is_refused_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, open_folder: Path, another_qemu: str
) -> None:
    """An update of the host: the file has the same name and is another program."""
    file = open_folder / "qemu-system-x86_64"
    file.write_text(f'#!/bin/sh\nexec {find_binary("x86_64")} "$@"\n')
    file.chmod(0o755)
    monkeypatch.setenv("TINAMOU_QEMU", str(file))
    with Machine(forkable=True) as source:
        file.write_text(f'#!/bin/sh\nexec {another_qemu.replace("{arch}", "x86_64")} "$@"\n')
        with pytest.raises(StateError, match="QEMU was replaced"):
            source.checkpoint("late", kind="instant")
        assert source.run("echo on").text == "on"
        assert [one.name for one in every() if one.machine == source.name] == []
