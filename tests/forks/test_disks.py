"""Disks of checkpoints and forks: nothing written is lost, nothing of one machine is seen by another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou import Machine
from tinamou.images.resolve import resolve
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import Request, fork_many
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.resting import discard
from tinamou.system.loop_thread import wait_for

pytestmark = pytest.mark.vm

ROUNDS = int(os.environ.get("TINAMOU_ROUNDS", "3"))
"""Rounds of checkpoint, restore and write; 50 in a thorough run."""


@pytest.fixture(autouse=True)
def no_checkpoints_left() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def put(machine: Machine, place: int, word: str) -> None:
    """Write a word of three letters to the disk, and keep one in memory."""
    write = f"printf {word} | dd of=/dev/vda bs=3 seek={place} conv=notrunc && sync && echo {word} >>/tmp/words"
    machine.run(write)


def read(machine: Machine, places: int) -> str:
    """The words on the disk, read past the guest's cache."""
    return machine.run(f"echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=3 count={places} 2>/dev/null | tr '\\0' .").text


def restored(checkpoint: Checkpoint) -> Machine:
    [restored] = wait_for(fork_many(checkpoint, 1, names=[checkpoint.machine], same=True))
    return Machine.around(AsyncMachine.around(Connected.of_fork(restored)))


def test_every_machine_has_its_own_disk() -> None:
    with Machine(forkable=True, disks=[{"size": "64M"}]) as source:
        put(source, 0, "one")
        with source.fork(2) as forks:
            put(source, 1, "src")
            put(forks[0], 1, "two")
            assert [read(one, 2) for one in (source, *forks)] == ["onesrc", "onetwo", "one..."]
            with source.fork() as later:
                put(later, 2, "new")
                assert [read(one, 3) for one in (later, source, forks[1])] == ["onesrcnew", "onesrc...", "one......"]
        assert read(source, 3) == "onesrc..."


@pytest.mark.parametrize("started_again", [False, True])
def test_a_fork_over_an_image_of_its_users_has_snapshots_of_its_own(tmp_path: Path, leftovers, started_again: bool) -> None:
    """What others read through, the checkpoint's files and the user's image, stays as it is, byte for byte."""
    image, tiny = tmp_path / "disk.img", resolve("tiny", "x86_64")
    image.write_bytes(b"own" + bytes((8 << 20) - 3))
    boot = {"kernel": tiny.kernel, "initrd": tiny.initrd, "cmdline": f"{tiny.cmdline} tinamou.disks=1"}
    with Machine(image=str(image), boot=boot, forkable=True, name="source") as source:
        put(source, 1, "src")
        source.checkpoint("moment")
        shared = {path: path.read_bytes() for path in (image, *Path(every()[0].directory).glob("disk*"))}
        assert len(shared) == 2
        [name] = tinamou("fork", "moment").split()
        words = ["ownsrc"]
        for number in range(2, 6):
            tinamou("exec", name, "--", "sh", "-c", f"printf n{number:02} | dd of=/dev/vda bs=3 seek={number} conv=notrunc")
            tinamou("exec", name, "--", "sync")
            tinamou("snapshot", "create", name, f"s{number}")
            words.append(f"n{number:02}")
        if started_again:
            tinamou("stop", name)
        for number in (2, 3, 4):
            tinamou("snapshot", "rm", name, f"s{number}")
        tinamou("snapshot", "flatten", name)
        if started_again:
            tinamou("start", name)
        text = "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=3 count=6 2>/dev/null"
        assert tinamou("exec", name, "--", "sh", "-c", text) == "".join(words)
        assert call("check", name).returncode == 0
        assert {path: path.read_bytes() for path in shared} == shared
        tinamou("rm", "-f", name)
    tinamou("checkpoints", "rm", "-f", "moment")
    assert leftovers.settle() == []


@pytest.mark.usefixtures("every_qemu")
@pytest.mark.parametrize("kind", ["instant", "portable"])
@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_rounds_of_checkpoint_restore_and_write_keep_every_write(kind: Request) -> None:
    with Machine(forkable=True, disks=[{"size": "64M"}]) as source:
        put(source, 0, "w00")
        checkpoint = source.checkpoint("round-0", kind=kind)
        name = source.name
    for number in range(1, ROUNDS + 1):
        with restored(checkpoint) as machine:
            assert machine.name == name
            words = [f"w{n:02}" for n in range(number)]
            assert read(machine, number) == "".join(words)
            assert machine.run("cat /tmp/words").text.split() == words
            put(machine, number, f"w{number:02}")
            checkpoint = machine.checkpoint(f"round-{number}", kind=kind)
            assert checkpoint.kind == kind
