"""Machines started in parallel and killed at random moments leave the host as it was.

``TINAMOU_KILLS`` is how many machines are started and killed in all (40 unless it says otherwise), ``TINAMOU_PARALLEL`` how
many at a time (20). The machines stay at the reset line (``-S``): what they take from the host counts, not the guest.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from test_receipt import PAGE, whole_host  # noqa: F401

from tinamou.errors import TinamouError
from tinamou.machine.gather import resolve_image
from tinamou.machine.receipts import holdings, repair
from tinamou.machine.starting import begin
from tinamou.spec import load_spec
from tinamou.state import ledger, machines
from tinamou.system.hugetlb import Pool

KILLS = int(os.environ.get("TINAMOU_KILLS", "40"))
PARALLEL = int(os.environ.get("TINAMOU_PARALLEL", "20"))
SECONDS = 0.15 * PARALLEL

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(60 + 3 * KILLS)]


def host_now(state):
    """Everything of the host that a machine may change: pool, groups, mounts, interfaces, processes, files in the state."""
    groups = [str(path) for root in Path("/sys/fs/cgroup").iterdir() for path in (root / "tinamou").glob("*")]
    return {
        "pages": Pool(PAGE).total,
        "groups": sorted(groups),
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state) in line],
        "interfaces": sorted(Path("/sys/class/net").iterdir()),
        "processes": sorted(line for pid, line in qemus(state).items()),
        "ledger": ledger.path().exists(),
        "files": sorted(str(path) for path in machines.machines_dir().rglob("*")),
    }


def qemus(state):
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if str(state).encode() in line and b"qemu" in line:
                found[int(folder.name)] = line
    return found


def start(number, ephemeral):
    """In a child: starts a machine and lingers, as a command that attends it would; never returns."""
    status = 0
    try:
        wish = {
            "name": f"k{number}",
            "memory": {"size": "32M", "hugepages": "2M"},
            "cpu": {"count": 1 + number % 2, "pin": "auto"},
            "limits": {"cpu": 0.5},
            "qemu_args": ["-S"],
        }
        begin(load_spec(wish), ephemeral=ephemeral, dies_with_parent=number % 3 == 0)
        time.sleep(60)
    except TinamouError:
        status = 1
    finally:
        os._exit(status)


def test_killed_at_random(state):
    resolve_image(load_spec({}), build=True)
    chance = random.Random(7)
    before = host_now(state)
    left, running, number, most = KILLS, {}, 0, 0
    while left or running:
        while left and len(running) < PARALLEL:
            pid = os.fork()
            if pid == 0:
                start(number, ephemeral=number % 2 == 0)
            running[pid] = time.monotonic() + chance.uniform(0, SECONDS)
            number, left = number + 1, left - 1
        due = [pid for pid, moment in running.items() if moment < time.monotonic()]
        for pid in due:
            if chance.random() < 0.5 and (victims := list(qemus(state))):
                kill(chance.choice(victims))
            kill(pid)
            os.waitpid(pid, 0)
            del running[pid]
        if chance.random() < 0.05:
            repair()
        most = max(most, Pool(PAGE).total)
        time.sleep(0.01)
    assert most > before["pages"], "nothing was ever taken"
    for pid in qemus(state):
        if chance.random() < 0.5:
            kill(pid)
    for folder in machines.machines_dir().iterdir():
        os.utime(folder, (0, 0))
    repair()
    for record in machines.machines():
        from tinamou.machine.life import remove

        remove(record, force=True)
    assert host_now(state) == before
    assert holdings() == []


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
