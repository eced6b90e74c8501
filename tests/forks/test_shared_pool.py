"""Pools that several commands share, with real guests: taking, refilling, and kill -9 of keeper and takers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import memory_exists, memory_of
from typed import eventually, tinamou

from tinamou import Machine, SharedPool
from tinamou.errors import SpecError, StateError
from tinamou.machine.checkpoints import every
from tinamou.machine.pooled import create, remove
from tinamou.snapshots.resting import discard
from tinamou.spec import load_spec
from tinamou.state import machines, pools
from tinamou.system.loop_thread import wait_for

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Pools and checkpoints stay when their makers go; a test's own must not."""
    yield
    for entry in pools.every():
        remove(entry.name)
    for one in every():
        discard(Path(one.directory))


def of_tiny(name: str = "two", size: int = 2) -> SharedPool:
    """A pool of tiny guests."""
    wait_for(create(name, size, spec=load_spec({"net": []})))
    return SharedPool(name)


def test_the_verbs(state: Path) -> None:
    assert tinamou("pool", "create", "web", "--size", "2") == "web\n"
    [row] = json.loads(tinamou("pool", "ls", "--json"))
    assert (row["name"], row["state"], row["waiting"], row["size"], row["source"]) == ("web", "up", 2, 2, "tiny")
    assert row["occupied"] > 1 << 20
    first, second = (tinamou("pool", "run", "web", "--", "hostname") for _ in range(2))
    assert first != second
    assert tinamou("pool", "run", "web", "--", "sh", "-c", "exit 9", status=9) == ""
    assert tinamou("pool", "run", "web", "--time-limit", "1", "--", "sleep", "600", status=124) == ""
    stays = tinamou("pool", "take", "web").strip()
    assert tinamou("exec", stays, "--", "hostname").strip() == stays
    assert "waiting" in tinamou("pool", "show", "web")
    tinamou("pool", "create", "web", status=118)
    memory = memory_of("pool-web")
    tinamou("pool", "rm", "web")
    assert json.loads(tinamou("pool", "ls", "--json")) == []
    eventually(lambda: [row["name"] for row in json.loads(tinamou("ls", "--json"))] == [stays], "the end of the others")
    tinamou("rm", "-f", stays)
    eventually(lambda: not memory_exists(memory), "the end of its memory")
    assert list((state / "pools").iterdir()) == []


def test_wrong_pools_are_refused_with_every_problem() -> None:
    from tinamou.cli.options import MachineOptions
    from tinamou.cli.pool import _checked

    with pytest.raises(SpecError) as refused:
        _checked("Web", 0, "much", "", MachineOptions(name="one"))
    assert [problem.path for problem in refused.value.problems] == ["name", "--size", "--name", "--bound"]
    tinamou("pool", "take", "nobody", status=118)
    tinamou("pool", "rm", "nobody", status=118)


def test_a_guest_that_cannot_boot_leaves_no_pool(state: Path) -> None:
    spec = load_spec({"net": [], "qemu_args": ["-what"]})
    with pytest.raises(Exception, match="QEMU"):
        wait_for(create("bad", 1, spec=spec))
    assert not pools.folder("bad").exists()
    assert list((state / "machines").iterdir()) == []


def test_machines_are_handed_out_once_and_replaced() -> None:
    pool = of_tiny()
    taken = [pool.take() for _ in range(5)]
    assert [one.run("hostname").text for one in taken] == [one.name for one in taken]
    assert len({one.run("cat /etc/machine-id; head -c 32 /dev/urandom | base64").text for one in taken}) == 5
    for one in taken:
        one.kill()
    eventually(lambda: len(machines.machines()) == 2, "two wait, the taken ones are gone")


def test_warm_machines_come_from_a_pool_for_the_same_wish() -> None:
    of_tiny("same")
    with Machine(warm=True) as one:
        assert one.record.parent == "pool-same"
    with Machine(warm=True, memory="256M") as other:
        assert other.record.parent != "pool-same"


def test_a_pool_of_a_checkpoint() -> None:
    with Machine(forkable=True, net=[]) as source:
        source.run("echo here >/tmp/mark")
        source.checkpoint("marked")
    tinamou("pool", "create", "marks", "marked", "--size", "1")
    assert tinamou("pool", "run", "marks", "--", "cat", "/tmp/mark") == "here\n"
    tinamou("pool", "rm", "marks")
    assert [one.name for one in every()] == ["marked"]


def test_a_keeper_that_is_killed_leaves_nothing_but_what_was_taken(state: Path) -> None:
    pool = of_tiny()
    memory = memory_of("pool-two")
    with pool.take() as taken:
        os.kill(pools.find("two").keeper[0], signal.SIGKILL)
        eventually(lambda: [one.name for one in machines.machines()] == [taken.name], "what waited is gone, unasked")
        eventually(lambda: not any((state / "pools").iterdir()), "the pool's folder is gone")
        assert taken.run("echo on").text == "on"
        with pytest.raises(StateError, match="no pool"):
            pool.take()
    eventually(lambda: not memory_exists(memory), "its memory is gone")
    assert list((state / "machines").iterdir()) == []


def test_a_keeper_killed_with_its_watcher_is_cleared_away_by_the_next_command(state: Path) -> None:
    of_tiny()
    memory = memory_of("pool-two")
    keeper = pools.find("two").keeper[0]
    leash = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    watchers = [pid for pid in leash if b"host\0repair" in command_line(pid)]
    assert len(watchers) == 1
    os.kill(int(watchers[0]), signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{keeper}").exists() or "Z" in Path(f"/proc/{keeper}/stat").read_text(), "it is dead")
    eventually(lambda: json.loads(tinamou("ls", "--json")) == [], "the end of what waited")
    assert list((state / "pools").iterdir()) == []
    eventually(lambda: not memory_exists(memory), "the end of its memory")


def command_line(pid: str) -> bytes:
    """That of a process, which may have ended by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


TAKER = """
import sys, time
from tinamou import SharedPool
vm = SharedPool("two").take()
print(vm.name, flush=True)
time.sleep(600)
"""


def test_a_taker_that_is_killed_takes_its_machine_along() -> None:
    of_tiny()
    with subprocess.Popen([sys.executable, "-c", TAKER], stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None
        name = taker.stdout.readline().strip()
        assert name in [one.name for one in machines.machines()]
        taker.kill()
    eventually(lambda: name not in [one.name for one in machines.machines()], "the taken machine is gone")


OWNER = """
import time
from tinamou import Pool
with Pool(size=2) as pool:
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_program_with_a_pool_that_is_killed_leaves_no_machine(state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert len(machines.machines()) == 2
        pids = [one.pid for one in machines.machines()]
        owner.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "QEMU went with the program")
    assert json.loads(tinamou("ls", "--json")) == []
    assert list((state / "machines").iterdir()) == []
