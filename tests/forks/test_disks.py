"""Disks of checkpoints and forks: nothing written is lost, nothing of one machine is seen by another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
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


@pytest.fixture(params=["installed", pytest.param("10", marks=pytest.mark.qemu10)])
def either_qemu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the QEMU that is installed, once with QEMU 10."""
    if request.param == "10":
        monkeypatch.setenv("TINAMOU_QEMU", os.environ["TINAMOU_QEMU10"])


@pytest.mark.usefixtures("either_qemu")
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
