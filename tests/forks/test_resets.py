"""Reset and reboot inside forks: the guest comes back as the fork it is, again and again, on both versions of QEMU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.machine.booting import until_up
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.forking import Request, fork_many
from tinamou.snapshots.resting import discard
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RESETS = int(os.environ.get("TINAMOU_RESETS", "3"))
"""How often each fork is reset, and reboots; 12 in a thorough run."""


@pytest.fixture(autouse=True)
def no_checkpoints_left() -> Iterator[None]:
    """Checkpoints stay when machines go; a test's own must not."""
    yield
    for one in every():
        discard(Path(one.directory))


def rebooted(machine: Machine) -> None:
    """The guest restarts by itself."""

    async def reboot() -> None:
        attended = machine._machine.connected
        attended.drop_line()
        session = await attended.session()
        with session.listen("RESET") as events:
            await attended.agent.run(["sh", "-c", "(sleep 0.2; reboot -f) >/dev/null 2>&1 &"])
            await events.next(60.0)
        await until_up(attended)

    wait_for(reboot())


@pytest.mark.usefixtures("every_qemu")
@pytest.mark.parametrize("kind", ["instant", "portable"])
@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.timeout(120 + 40 * RESETS)
def test_forks_survive_resets_and_reboots(kind: Request, cpus: int) -> None:
    with Machine(forkable=True, cpus=cpus, disks=[{"size": "64M"}]) as source:
        source.run("echo kept >/dev/vda; sync")
        taken = source.checkpoint("moment", kind=kind)
    [restored] = wait_for(fork_many(taken, 1))
    with Machine.around(AsyncMachine.around(Connected.of_fork(restored))) as fork:
        boots = set()
        for number in range(2 * RESETS):
            rebooted(fork) if number % 2 else fork.reset()
            said = fork.run("hostname; head -n 1 /dev/vda 2>&1; nproc")
            assert said.text == f"{fork.name}\nkept\n{cpus}", number
            boots.add(fork.run("cat /proc/sys/kernel/random/boot_id").text)
        assert len(boots) == 2 * RESETS
