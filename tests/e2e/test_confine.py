"""``tinamou confine``: what stands around a machine that runs, and what was left out by name."""

import json
import os
import subprocess
import sys

import pytest

from tinamou.probe.walls import probe_walls

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
    tinamou("confine", "walled", status=119)
