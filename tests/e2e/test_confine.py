"""``tinamou confine``: what stands around a machine that runs, and what was left out by name."""

import json
import os
import subprocess
import sys

import pytest

from tinamou import Machine
from tinamou.facts import WallFacts
from tinamou.facts.walls import NAMESPACES
from tinamou.probe.walls import probe_walls
from tinamou.system import landlock

pytestmark = pytest.mark.vm


def tinamou(*words, status=0):
    argv = [sys.executable, "-m", "tinamou", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def walls(name):
    return {
        one["name"]: {wall["name"]: wall for wall in one["walls"]} for one in json.loads(tinamou("confine", name, "--json"))
    }


@pytest.mark.skipif(bool(probe_walls().refused), reason="this kernel makes no namespaces here")
@pytest.mark.usefixtures("every_qemu")
def test_the_walls_of_a_running_machine(state):
    words = ["--set", "net=[]", "--set", "tpm=true"]
    tinamou("run", "-d", "--name", "walled", *words)
    tinamou("run", "-d", "--name", "open", *words, "--set", 'confine.without=["files", "processes"]')
    try:
        seen = walls("walled")
        assert (
            [name for name, wall in seen["QEMU"].items() if not wall["stands"]] in (["label"], [])
            if not os.geteuid()
            else True
        )
        assert "bin dev etc" in seen["QEMU"]["files"]["found"] and seen["QEMU"]["network"]["found"].endswith("with lo")
        assert all(seen["swtpm"][name]["stands"] for name in ("rights", "files", "processes", "network", "ipc"))
        other = walls("open")["QEMU"]
        assert not other["files"]["stands"] and "confine.without" in other["files"]["planned"]
        assert not other["processes"]["stands"] and other["network"]["stands"]
        assert "no wall" in tinamou("confine", "open") and "MISSING" not in tinamou("confine", "open")
    finally:
        for name in ("walled", "open"):
            tinamou("rm", "-f", name)
    tinamou("confine", "walled", status=118)


@pytest.mark.skipif(landlock.abi() < 1, reason="this kernel has no Landlock")
def test_a_machine_runs_under_landlock_alone(monkeypatch):
    """Where the kernel makes no namespaces: what is opened again by its descriptor is let in, snapshots and forks go on."""
    alone = WallFacts(dict.fromkeys(NAMESPACES, "the test refuses it"), os.geteuid() != 0, landlock.abi())
    for module in ("machine.gather", "snapshots.fork"):
        monkeypatch.setattr(f"tinamou.{module}.probe_walls", lambda: alone)
    with Machine(net=[], disk=[{"size": "16M"}], forkable=True) as vm:
        vm.run("echo first >/dev/vda; sync")
        vm.snapshots.create("one")
        with vm.fork() as fork:
            assert fork.run("head -c 5 /dev/vda").text == "first"
        seen = {wall["name"]: wall for wall in json.loads(tinamou("confine", vm.name, "--json"))[0]["walls"]}
        assert "held by Landlock" in seen["files"]["found"] and not seen["processes"]["stands"]
