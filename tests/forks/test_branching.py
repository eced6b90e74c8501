"""A running machine is forked again and again: its memory is frozen where it lies, then what it changed is kept beside."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import fork_many
from tinamou.snapshots import branching
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.system.holding import why_not
from tinamou.system.loop_thread import wait_for
from tinamou.system.mappings import mapping_of, on_shelf

pytestmark = pytest.mark.vm
in_place = pytest.mark.skipif(bool(why_not()), reason=f"memory is not frozen here: {why_not()}")

FROZEN, CHANGES, RENEWED = (kind.why for kind in (branching._Frozen, branching._Changes, branching._Renewed))
SIZE = 512 << 20


def forked(checkpoint: Checkpoint) -> Machine:
    """A machine from it that runs."""
    [restored] = wait_for(fork_many(checkpoint, 1))
    return Machine.around(AsyncMachine.around(Connected.of_fork(restored)))


def sums(machine: Machine) -> str:
    """What the files in its memory hold."""
    return machine.run("cd /tmp && sha256sum f* && cat /dev/vda | sha256sum").text


@in_place
@pytest.mark.parametrize(
    "qemu", ["", pytest.param("10", marks=pytest.mark.qemu10), pytest.param("11", marks=pytest.mark.qemu11)]
)
def test_every_fork_is_the_machine_at_its_moment(qemu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if qemu:
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{qemu}"])
    ways, taken = [], []
    with Machine(forkable=True, net=[], cpus=2, disks=[{"size": "8M"}]) as source, ExitStack() as forks:
        for number, size in enumerate((1, 1, 2, 70, 1)):
            source.run(f"dd if=/dev/urandom of=/tmp/f{number} bs=1M count={size} 2>&1; echo {number} > /dev/vda; sync")
            expected = sums(source)
            checkpoint = source.checkpoint(f"c{number}")
            ways.append(checkpoint.why)
            fork = forks.enter_context(forked(checkpoint))
            assert sums(fork) == expected
            fork.run("dd if=/dev/urandom of=/tmp/f0 bs=1M count=3 2>&1")
            taken.append((checkpoint, expected))
            assert on_shelf(source.record.pid) == []
        assert sums(source) == expected
    assert ways == [FROZEN, CHANGES, CHANGES, RENEWED, CHANGES]
    for checkpoint, expected in taken:  # the source is gone, and forks have written what they like
        with forked(checkpoint) as fork:
            assert sums(fork) == expected


@in_place
def test_a_fork_is_forked_in_an_instant_too() -> None:
    with Machine(forkable=True, net=[]) as source, source.fork() as child:
        child.run("echo child > /tmp/who")
        taken = child.checkpoint("grandchild")
        assert (taken.kind, taken.why) == ("instant", CHANGES)
        with child.fork() as one, one.fork() as other, forked(taken) as third:
            assert {machine.run("cat /tmp/who").text for machine in (child, one, other, third)} == {"child"}
            assert len({machine.run("hostname").text for machine in (source, child, one, other, third)}) == 5
            one.run("echo one > /tmp/who")
            assert other.run("cat /tmp/who").text == "child"
        assert source.run("ls /tmp/who", check=False).status != 0


@in_place
def test_forks_share_what_the_source_holds() -> None:
    """Ten of a machine that holds 100 MB do not have 100 MB each."""
    with Machine(forkable=True, net=[]) as source:
        source.run("dd if=/dev/urandom of=/tmp/f bs=1M count=100 2>&1")
        with source.fork(3) as forks:
            for one in forks:
                one.run("cat /tmp/f > /dev/null")
                mapping = mapping_of(one.record.pid, SIZE)
                assert mapping.inode == mapping_of(source.record.pid, SIZE).inode
                assert mapping.private
                assert own_memory(one.record.pid, mapping.address) < 60 << 20


def own_memory(pid: int, address: int) -> int:
    """Bytes of a mapping that are the process' own."""
    rows = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    for row in rows:
        if row.startswith(f"{address:x}-"):
            break
    return next(int(row.split()[1]) << 10 for row in rows if row.startswith("Anonymous:"))


@in_place
def test_what_cannot_be_frozen_is_told_and_the_machine_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(12, "no more mappings")

    with Machine(forkable=True, net=[]) as source:
        with monkeypatch.context() as broken:
            broken.setattr(branching, "move", fails)
            with pytest.raises(StateError, match="cannot be taken over"):
                source.checkpoint("fails")
        assert source.run("echo on").text == "on"
        assert (every(), mapping_of(source.record.pid, SIZE).private) == ([], False)
        with source.fork() as fork:
            assert fork.run("echo on").text == "on"


def test_where_no_process_can_be_held_memory_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "why_not", lambda: "said by a test")
    with Machine(forkable=True, net=[]) as source:
        source.run("dd if=/dev/urandom of=/tmp/f bs=1M count=5 2>&1; sha256sum /tmp/f > /tmp/sum")
        for name in ("one", "two"):
            taken = source.checkpoint(name)
            assert (taken.kind, taken.why) == ("instant", "its memory is copied while it runs: said by a test")
            with forked(taken) as fork:
                assert fork.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"
                with fork.fork() as again:
                    assert again.run("sha256sum -c /tmp/sum").text == "/tmp/f: OK"


@in_place
@pytest.mark.virtiofsd
def test_memory_that_helpers_of_shares_work_in_is_copied(tmp_path: Path) -> None:
    with Machine(forkable=True, net=[], share=[f"{tmp_path}:/mnt/there"]) as source:
        taken = source.checkpoint("shared")
        assert taken.why == "its memory is copied while it runs: the helpers of its shared folders work in it"
        source.run("echo after > /mnt/there/file; sync")
        assert (tmp_path / "file").read_text() == "after\n"


AS_USER = """
from tinamou import Machine
from tinamou.machine.checkpoints import remove
with Machine(forkable=True, net=[]) as source:
    source.run("echo kept > /tmp/kept")
    print(source.checkpoint("mine").why)
    with source.fork() as fork, fork.fork() as child:
        print(child.run("cat /tmp/kept").text)
remove("mine", force=True)
"""


@in_place
@pytest.mark.root
def test_a_user_without_rights_forks_in_the_same_way(open_folder: Path) -> None:
    uid = 65533
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, uid, uid)
    sources = Path(branching.__file__).parent.parent.parent.absolute()
    places = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(sources)}
    words = [sys.executable, "-c", AS_USER]
    whoever = {"user": uid, "group": uid, "extra_groups": []}
    if subprocess.run(["test", "-r", branching.__file__, "-a", "-x", sys.executable], **whoever, check=False).returncode:
        pytest.skip("other users cannot run this checkout")
    done = subprocess.run(words, env=places, cwd="/", capture_output=True, text=True, check=False, timeout=300, **whoever)
    assert done.stdout.splitlines() == [FROZEN, "kept"], done.stderr
