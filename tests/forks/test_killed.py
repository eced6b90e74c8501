"""Kill -9 of tinamou, QEMU or both at random moments of saving and loading: clear errors, and the next command mends all."""

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
from tinamou.machine.booting import until_up
from tinamou.machine.checkpoints import every
from tinamou.machine.connected import Connected
from tinamou.machine.forking import checkpoint_by_name, fork_many
from tinamou.machine.reconcile import end_machine, reconcile
from tinamou.machine.starting import Started, begin, begin_again
from tinamou.machine.suspending import wake_up
from tinamou.snapshots.checkpoint import check, verify
from tinamou.snapshots.resting import discard
from tinamou.spec import load_spec
from tinamou.state import machines
from tinamou.system.loop_thread import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.slow]

KILLS = int(os.environ.get("TINAMOU_KILLS", "9"))
"""How often; 100 in a thorough run."""

HANGS_SECONDS = 60.0
"""A command that says nothing for so long hangs."""

VICTIMS = ("tinamou", "qemu", "both")

WORK = """
import dataclasses, random, sys
from tinamou.errors import TinamouError
from tinamou.machine import life
from tinamou.system.loop_thread import wait_for
from tinamou.machine.checkpoints import find
from tinamou.machine.connected import Connected
from tinamou.machine.forking import checkpoint_by_name, fork_many
from tinamou.machine.reconcile import end_machine
from tinamou.machine.suspending import suspend, wake_up
from tinamou.state import machines
from tinamou.state.record import change

def loaded(checkpoint, count, **how):
    for restored in wait_for(fork_many(checkpoint, count, **how)):
        restored.close()
        end_machine(restored.record)

def instant():
    loaded(wait_for(checkpoint_by_name(life.running("source"))), 2)

def portable():
    loaded(wait_for(checkpoint_by_name(life.running("source"), kind="portable")), 1)

def restore():
    loaded(find(chance.choice(["instant", "portable"])), 1, names=["restored"], same=True)

def suspension():
    wait_for(suspend(Connected.visiting(life.running("source"))))
    awake = wait_for(wake_up(machines.find("source")))
    change(awake.record, owner_pid=0, owner_started=0)

chance = random.Random(int(sys.argv[1]))
print("up", flush=True)
try:
    while True:
        what = chance.choice([instant, portable, restore, suspension])
        print(what.__name__, flush=True)
        what()
except TinamouError as error:
    print("said:", error.what, flush=True)
    sys.exit(9)
"""


def run_again(started: Started) -> None:
    """Wait for the guest and leave the machine to itself."""

    async def settle() -> None:
        machine = Connected(started.record, started.plan)
        await until_up(machine)
        await machine.release()

    wait_for(settle())


def put_right() -> str:
    """What the next commands make of what is left; the machine answers again afterwards."""
    reconcile()
    record = machines.find("source")
    was = wait_for(life.state_of(record))
    assert was in ("running", "suspended", "stopped")
    if was == "suspended":
        awake = wait_for(wake_up(record))
        from tinamou.state.record import change

        change(awake.record, owner_pid=0, owner_started=0)
    elif was == "stopped":
        run_again(begin_again(record))
    return was


def answers() -> None:
    """The guest of the machine runs a command."""
    from tinamou.guest.agent import Agent

    async def ask() -> None:
        async with Agent(str(machines.find("source").file("agent.sock"))) as agent:
            assert (await agent.run(["echo", "on"])).text == "on"

    wait_for(ask())


def strike(victim: str, process: subprocess.Popen[bytes], log: Path, chance: random.Random) -> None:
    """Kill the command, a QEMU, or both; a command that lost its QEMU ends, or begins its next work, and does not hang."""
    living = [record.pid for record in machines.machines() if record.running]
    if victim in ("qemu", "both") and living:
        os.kill(chance.choice(living), signal.SIGKILL)
    if victim in ("tinamou", "both"):
        process.send_signal(signal.SIGKILL)
    begun, deadline = log.read_bytes().count(b"\n"), time.monotonic() + HANGS_SECONDS
    while process.poll() is None and log.read_bytes().count(b"\n") < begun + 2:
        assert time.monotonic() < deadline, f"it hangs: {log.read_text()}"
        time.sleep(0.05)
    process.kill()
    process.wait()


def remains(state: Path) -> str:
    """What is left of machines, and what is said of it when it is looked at again."""
    listing = subprocess.run(["ls", "-lAR", "--full-time", state / "machines"], capture_output=True, text=True, check=True)
    return f"{listing.stdout}\n{reconcile()}"


def test_kills_at_random_moments_leave_everything_whole(state: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    chance = random.Random(int(os.environ.get("TINAMOU_SEED", "1")))
    run_again(begin(load_spec({"name": "source", "memory": {"forkable": True}}), ephemeral=False))
    for kind in ("instant", "portable"):
        wait_for(checkpoint_by_name(life.running("source"), kind, kind=kind))  # type: ignore[arg-type]
    seen: list[tuple[str, str, str]] = []
    try:
        for number in range(KILLS):
            victim = VICTIMS[number % 3]
            words = [sys.executable, "-c", WORK, str(chance.randrange(1 << 30))]
            with log.open("wb") as file, subprocess.Popen(words, stdout=file, stderr=file) as process:
                while not log.stat().st_size:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0.0, 3.0))
                strike(victim, process, log, chance)
            said = log.read_text()
            assert "Traceback" not in said, said
            time.sleep(0.3)
            seen.append((victim, said.strip().rpartition("\n")[2], put_right()))
            answers()
            assert {path.name for path in (state / "machines").iterdir()} == {"source"}, remains(state)
            for one in every():
                verify(one) if one.kind == "portable" else check(one)
                if one.name not in ("instant", "portable"):
                    discard(Path(one.directory))
            assert {path.name for path in (state / "checkpoints").iterdir()} == {"instant", "portable"}, seen
        for one in every():
            [restored] = wait_for(fork_many(one, 1))
            restored.close()
            end_machine(restored.record)
    finally:
        for index, (victim, during, left) in enumerate(seen):
            print(index, "killed", victim, "during", during, "left it", left)
        life.remove(machines.find("source"), force=True)
        for one in every():
            discard(Path(one.directory))
