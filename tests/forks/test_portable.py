"""Portable checkpoints of real guests, of every machine, and machines from them: whole, distinct, refused when damaged."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.errors import StateError, TinamouError
from tinamou.machine.checkpoints import every, tree
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import fork_many
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.snapshots.checkpoint import Checkpoint, File, check, write
from tinamou.snapshots.resting import discard
from tinamou.state import machines
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow]

READY = "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; "
WHO = READY + "hostname; cat /sys/class/net/eth0/address; head -c 32 /dev/urandom | base64"


@pytest.fixture(autouse=True)
def no_checkpoints_left() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def forks_of(checkpoint: Checkpoint, count: int = 1, *, same: bool = False) -> list[Machine]:
    names = [checkpoint.machine] if same else []
    return [
        Machine.around(AsyncMachine.around(Connected.of_fork(one)))
        for one in wait_for(fork_many(checkpoint, count, names=names, same=same))
    ]


@pytest.fixture
def checkpoint() -> Checkpoint:
    """A portable checkpoint of a throw-away machine that is gone."""
    with Machine(net=["user"]) as machine:
        machine.run("echo kept > /tmp/before")
        return machine.checkpoint("kept")


@pytest.mark.usefixtures("every_qemu")
@pytest.mark.parametrize("forkable", [False, True])
def test_forks_are_themselves_and_the_machine_goes_on(forkable: bool) -> None:
    with Machine(forkable=forkable, cpus=2, disks=[{"size": "64M"}]) as source:
        source.run("echo disk >/dev/vda; sync; echo kept > /tmp/before")
        taken = source.checkpoint("kept", kind="portable")
        assert (taken.kind, taken.ram, taken.memory) == ("portable", None, 512 << 20)
        source.run("echo later >/dev/vda; echo later >/tmp/before; sync")
        forks = forks_of(taken, 2)
        try:
            said = [one.run(WHO).text.split("\n") for one in [source, *forks]]
            assert all(len(set(words)) == 3 for words in zip(*said, strict=True))
            assert len({one.run("cat /etc/machine-id").text for one in forks}) == 2
            assert [one.run("cat /tmp/before; head -n 1 /dev/vda; nproc").text for one in forks] == ["kept\ndisk\n2"] * 2
            assert source.run("cat /tmp/before; head -n 1 /dev/vda").text == "later\nlater"
            assert abs(int(forks[0].run("date +%s").text) - int(source.run("date +%s").text)) <= 2
            forks[0].reset()
            assert forks[0].run("hostname").text == forks[0].name
        finally:
            for one in forks:
                one.kill()


def test_a_machine_that_is_not_forkable_is_checkpointed_and_forked_and_says_why() -> None:
    with Machine() as machine:
        taken = machine.checkpoint("here")
        assert (taken.kind, taken.why) == ("portable", "it was not started forkable")
        with machine.fork() as fork:
            assert fork.run("hostname").text == fork.name


def test_forks_of_forks_and_of_restored_machines() -> None:
    with Machine(forkable=True) as source:
        source.run("echo 1 >/tmp/generation")
        with source.fork() as fork:
            fork.run("echo 2 >>/tmp/generation")
            taken = fork.checkpoint("second", kind="portable")
            assert (taken.kind, taken.why) == ("portable", "it was asked for")
            name = fork.name
            [third] = forks_of(taken)
            with third:
                assert third.run("cat /tmp/generation; hostname").text == f"1\n2\n{third.name}"
                lines = [line.strip() for line in tree()]
                assert lines[lines.index("@second portable") + 1] == f"{third.name} running"
                assert third.checkpoint("third").kind == "instant"
        [restored] = forks_of(taken, same=True)
        with restored:
            assert restored.run("hostname; cat /tmp/generation").text == f"{name}\n1\n2"


def test_a_restored_machine_has_the_same_addresses_and_stays() -> None:
    with Machine() as machine:
        before = machine.run(WHO).text.split("\n")[:2]
        taken = machine.checkpoint("same")
    [restored] = forks_of(taken, same=True)
    with restored:
        assert restored.run(WHO).text.split("\n")[:2] == before
        assert restored.checkpoint("again").kind == "portable"


def test_damage_is_refused_by_name_before_anything_starts(checkpoint: Checkpoint) -> None:
    state = Path(checkpoint.state.path)
    whole = state.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    os.utime(state, ns=(checkpoint.state.changed, checkpoint.state.changed))
    state.write_bytes(damaged)
    os.utime(state, ns=(checkpoint.state.changed, checkpoint.state.changed))
    with pytest.raises(StateError, match=r"state\.zst.*SHA-256"):
        forks_of(checkpoint)
    state.write_bytes(whole[:-100])
    with pytest.raises(StateError, match=rf"state\.zst.*{len(whole)} bytes then, {len(whole) - 100} now"):
        forks_of(checkpoint)
    state.unlink()
    with pytest.raises(StateError, match=r"state\.zst.*is gone"):
        forks_of(checkpoint)
    assert machines.machines() == []


def test_a_stream_that_ends_early_ends_in_an_error_and_nothing_left(checkpoint: Checkpoint) -> None:
    """What the checksum cannot know: the state was cut short when it was saved."""
    from tinamou.digest import file_digest

    state = Path(checkpoint.state.path)
    state.write_bytes(state.read_bytes()[:100_000])
    short = dataclasses.replace(checkpoint, state=File.of(state), state_sha256=file_digest(state))
    with pytest.raises(TinamouError, match=r"ended before the machine ran|closed the session|ended as failed"):
        forks_of(short, 2)
    assert machines.machines() == []


def test_other_hardware_is_refused_and_named(checkpoint: Checkpoint) -> None:
    spec = checkpoint.record["spec"]
    more = {**spec, "memory": {**spec.get("memory", {}), "size": "640M"}, "devices": {"rng": False}}
    with pytest.raises(StateError, match="would not be the machine that was saved") as refused:
        forks_of(dataclasses.replace(checkpoint, record={**checkpoint.record, "spec": more}))
    told = " ".join(str(one) for one in refused.value.problems)
    assert "virtio-rng-pci" in told
    assert str(640 << 20) in told
    assert machines.machines() == []


@pytest.mark.parametrize("number", [pytest.param(one, marks=getattr(pytest.mark, f"qemu{one}")) for one in ("10", "11")])
def test_another_qemu_loads_it_on_the_same_board(
    checkpoint: Checkpoint, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as chosen:
        chosen.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{number}"])
        now = probe_qemu(find_binary("x86_64"))
        if now.machine(checkpoint.plan["machine_type"]) is None:
            pytest.skip(f"{now.binary} is older than the QEMU that saved it")
        (fork,) = forks_of(checkpoint)
        try:
            assert fork.run("cat /tmp/before").text == "kept"
            assert (fork.record.machine_type, fork.record.package) == (checkpoint.plan["machine_type"], now.package)
            again = fork.checkpoint("again", kind="portable")
            assert (again.version, again.package) == (".".join(map(str, now.version)), now.package)
        finally:
            fork.kill()
    (back,) = forks_of(again)
    try:
        assert back.run("cat /tmp/before").text == "kept"
    finally:
        back.kill()


def test_another_qemu_that_does_not_load_it_says_whose_it_is(checkpoint: Checkpoint) -> None:
    """What is wrong with the state stands for what the two do not agree on; its file stays as it is."""
    from tinamou.digest import file_digest

    state = Path(checkpoint.state.path)
    whole = state.read_bytes()
    state.write_bytes(whole[:100_000])
    short = dataclasses.replace(checkpoint, state=File.of(state), state_sha256=file_digest(state), package="Another 1:2.3")
    with pytest.raises(
        StateError, match=rf"does not load a state of QEMU {checkpoint.version} \(Another 1:2.3\)"
    ) as refused:
        forks_of(short)
    assert "TINAMOU_QEMU" in refused.value.fix
    assert state.read_bytes() == whole[:100_000]
    assert machines.machines() == []


def test_a_board_without_a_version_is_loaded_by_its_series_alone(checkpoint: Checkpoint) -> None:
    check(checkpoint)
    unversioned = dataclasses.replace(checkpoint, plan={**checkpoint.plan, "machine_type": "q35"})
    check(unversioned)
    with pytest.raises(StateError, match="'q35': has no version"):
        check(dataclasses.replace(unversioned, version="1.0.0"))


def test_another_cpu_is_refused_where_the_guest_sees_it(checkpoint: Checkpoint) -> None:
    assert checkpoint.cpu == ""
    with pytest.raises(StateError, match="An Older CPU"):
        check(dataclasses.replace(checkpoint, cpu="An Older CPU, features 0123"))


def test_no_space_leaves_the_machine_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert os.system(f"mount -t tmpfs -o size=8M tm-small {tmp_path}") == 0
    monkeypatch.setattr("tinamou.snapshots.save.checkpoints_dir", lambda: tmp_path)
    try:
        with Machine() as source:
            with pytest.raises(StateError, match="cannot be written") as refused:
                source.checkpoint("big")
            assert "No space left" in refused.value.why
            assert source.run("echo on").text == "on"
            assert not list(tmp_path.iterdir())
    finally:
        os.system(f"umount {tmp_path}")


def test_what_was_unplugged_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Machine() as source:
        plan = source.record.file("plan.json")
        plan.write_text(plan.read_text().replace("rng0-dev", "rng9-dev"))
        monkeypatch.setattr("tinamou.machine.portable.plan_again", lambda *_: None)
        with pytest.raises(StateError, match="cannot be saved") as refused:
            source.checkpoint("x")
        told = " ".join(one.reason for one in refused.value.problems)
        assert "rng0-dev was plugged in while it ran" in told
        assert "rng9-dev was unplugged while it ran" in told


def test_an_entry_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    write(checkpoint)
    assert dataclasses.replace(every()[0], plan={}) == dataclasses.replace(checkpoint, plan={})
    assert every()[0].loaded_plan() == checkpoint.loaded_plan()
