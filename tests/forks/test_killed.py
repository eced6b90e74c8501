"""Kill -9 at random moments of checkpointing and forking: the next command finds everything and puts it right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinamou.machine import life
from tinamou.machine.blocking import wait_for
from tinamou.machine.checkpoints import every
from tinamou.machine.reconcile import reconcile
from tinamou.machine.starting import begin
from tinamou.snapshots.checkpoint import check, discard
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.system.paths import ram_dir

pytestmark = [pytest.mark.vm, pytest.mark.slow]

KILLS = int(os.environ.get("TINAMOU_KILLS", "5"))
"""How often; 100 in a thorough run."""

WORK = """
from tinamou.machine import life
from tinamou.machine.blocking import wait_for
from tinamou.machine.forking import checkpoint_by_name, fork_many
print("up", flush=True)
number = 0
while True:
    taken = wait_for(checkpoint_by_name(life.running("source")))
    for woken in wait_for(fork_many(taken, 2)):
        woken.close()
"""


def test_kills_at_random_moments_leave_a_running_machine_and_whole_checkpoints(state: Path) -> None:
    chance = random.Random(int(os.environ.get("TINAMOU_SEED", "1")))
    started = begin(load_spec({"name": "source", "memory": {"forkable": True}}), ephemeral=False)
    from tinamou.machine.attended import AsyncMachine

    async def settle() -> None:
        machine = AsyncMachine.attend(started)
        await machine.ready()
        await machine.release()

    wait_for(settle())
    try:
        for _ in range(KILLS):
            with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "up\n"
                time.sleep(chance.uniform(0.0, 3.0))
                process.send_signal(signal.SIGKILL)
            time.sleep(0.3)
            reconcile()
            assert [record.name for record in machines.machines()] == ["source"]
            assert wait_for(life.state_of(life.running("source"))) == "running"
            for one in every():
                check(one)
                discard(Path(one.directory))
            assert not ram_dir().exists()
            assert {path.name for path in (state / "machines").iterdir()} == {"source"}
    finally:
        life.remove(machines.find("source"), force=True)
        for one in every():
            discard(Path(one.directory))
