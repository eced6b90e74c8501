"""A user's program: opens a machine by its name, forks it, takes a snapshot and goes back, adds a disk and a card."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tinamou
from tinamou import Completed, Disk, Machine, Nic, Size, Snapshot, StateError


def make(name: str) -> str:
    """A machine that stays, off, with one disk."""
    with Machine(keep=True, name=name, forkable=False, disk=[{"size": "64M"}], net=[]) as vm:
        done: Completed = vm.run("echo first > /dev/vda")
        assert done.status == 0
        return vm.name


def change(name: str) -> tuple[Snapshot, str, str]:
    """The machine by its name, running, with one more disk and one more card than it had."""
    with tinamou.open(name) as vm:
        vm.start()
        assert vm.running
        before: Snapshot = vm.snapshots.create("before", note="as it was made")
        disk = vm.disks.add(size=Size.parse("32M"))
        nic = vm.nics.add("passt", model="virtio")
        disks: Sequence[Disk] = vm.disks.list()
        nics: Sequence[Nic] = vm.nics.list()
        assert [one.name for one in disks] == ["disk0", disk]
        assert [one.name for one in nics] == [nic]
        vm.run("echo other > /dev/vda; sync")
        return before, disk, nic


def forks(name: str, count: int) -> set[str]:
    """The hostnames of so many copies, which all have what the machine has on its disk."""
    with tinamou.open(name) as vm:
        kept = vm.checkpoint("moment")
    with tinamou.fork(kept, count) as copies:
        answers = [one.run(["sh", "-c", "hostname; head -c 5 /dev/vda"], timeout=60.0).text.split() for one in copies]
    assert {said for _, said in answers} == {"other"}
    return {host for host, _ in answers}


def back(name: str, snapshot: Snapshot) -> str:
    """What was on the disk when the snapshot was taken."""
    with tinamou.open(name) as vm:
        try:
            vm.snapshots.revert(snapshot.name)
        except StateError as error:
            print("as it should be:", error.what, file=sys.stderr)
        vm.stop(grace=20.0)
        vm.snapshots.revert(snapshot.name)
        vm.start()
        assert vm.qmp("query-status") is not None
        return vm.run("head -c 5 /dev/vda").text


if __name__ == "__main__":
    machine = make(sys.argv[1])
    taken, *added = change(machine)
    print(*added, len(forks(machine, 2)), back(machine, taken))
    print(*(one.name for one in tinamou.machines()), *(one.name for one in tinamou.checkpoints()))
