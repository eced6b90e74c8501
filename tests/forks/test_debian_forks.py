"""Checkpoints and forks of a Debian guest with UEFI and two CPUs, its variables of the moment included; suspended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.machine import life
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import Request, fork_many
from tinamou.snapshots.resting import discard
from tinamou.state import machines
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

VARIABLE = "/sys/firmware/efi/efivars/TinamouTest-6f1c4a52-9d3b-4c1e-8a77-2b5d90e3c614"
MOUNTED = "mountpoint -q /sys/firmware/efi/efivars || mount -t efivarfs efivarfs /sys/firmware/efi/efivars; "
KEY = "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
WHO = f"cat /etc/machine-id; cat /etc/hostname; {KEY}; head -c 32 /dev/urandom | base64"


@pytest.fixture(autouse=True)
def no_checkpoints_left() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def put(machine: Machine, word: str) -> None:
    """Write the UEFI variable, and a file."""
    replace = f"chattr -i {VARIABLE} 2>/dev/null; rm -f {VARIABLE}; printf '\\007\\000\\000\\000{word}' >{VARIABLE}"
    machine.run(f"{MOUNTED} {replace}; echo {word} >/root/word; sync")


def read(machine: Machine) -> str:
    """What the variable and the file say."""
    return machine.run(f"{MOUNTED} cat {VARIABLE} | tail -c +5; echo; cat /root/word; nproc").text


@pytest.mark.parametrize("kind", ["instant", "portable"])
def test_forks_of_debian_have_the_variables_of_the_moment(kind: Request) -> None:
    forkable = kind == "instant"
    with Machine("debian", cpus=2, memory="1G", firmware="uefi", forkable=forkable, timeout=600) as source:
        source.run("cloud-init status --wait >/dev/null; true", timeout=300)
        put(source, "one")
        taken = source.checkpoint("debian")
        assert taken.kind == kind
        print(f"{kind}: {taken.state.size >> 20} MiB, stood still {taken.pause:.3f} s, took {taken.took:.2f} s")
        put(source, "two")
        forks = [Machine.around(AsyncMachine.around(Connected.of_fork(one))) for one in wait_for(fork_many(taken, 2))]
        try:
            print(*(one.record.timings for one in forks))
            said = [one.run(WHO).text.split("\n") for one in (source, *forks)]
            assert all(len(set(words)) == 3 for words in zip(*said, strict=True)), said
            assert [read(one) for one in (source, *forks)] == ["two\ntwo\n2", "one\none\n2", "one\none\n2"]
            put(forks[0], "own")
            forks[0]._machine.timeout = 600
            forks[0].reset()
            assert [read(one) for one in (source, *forks)] == ["two\ntwo\n2", "own\nown\n2", "one\none\n2"]
        finally:
            for one in forks:
                one.kill()


def test_debian_is_suspended_and_resumed() -> None:
    with Machine("debian", name="deb", cpus=2, memory="1G", firmware="uefi", keep=True, timeout=600) as machine:
        machine.run("cloud-init status --wait >/dev/null; true", timeout=300)
        put(machine, "one")
        boot = machine.run("cat /proc/sys/kernel/random/boot_id").text
        machine.suspend()
        time.sleep(3)
        machine.resume()
        print(machine.record.timings)
        assert machine.run("cat /proc/sys/kernel/random/boot_id").text == boot
        assert abs(int(machine.run("date +%s").text) - time.time()) <= 2
        assert read(machine) == "one\none\n2"
        machine.kill()
    life.remove(machines.find("deb"), force=True)
