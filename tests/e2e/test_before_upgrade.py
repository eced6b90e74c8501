"""Which machines survive another QEMU is predicted, and compared with what happens when it is put under them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typed import call, tinamou

from tinamou import Machine
from tinamou.errors import TinamouError
from tinamou.probe.qemu import find_binary
from tinamou.state import machines

pytestmark = pytest.mark.vm

SETS: dict[str, dict[str, object]] = {
    "none": {"net": []},
    "virtio": {"disks": [{"size": "8M"}], "net": ["user"]},
    "tpm": {"net": [], "tpm": True},
    "forkable": {"net": ["user"], "disks": [{"size": "8M"}], "forkable": True},
    "forkable, tpm": {"net": [], "tpm": True, "forkable": True},
}
SERIES = ("", "10", "11")
MARKS = {"": (), "10": (pytest.mark.qemu10,), "11": (pytest.mark.qemu11,)}
PAIRS = [
    pytest.param(old, new, id=f"{old or 'installed'}-{new or 'installed'}", marks=[*MARKS[old], *MARKS[new]])
    for old in SERIES
    for new in SERIES
    if old != new
]


def binary(which: str) -> str:
    """The QEMU of that series, as TINAMOU_QEMU names it."""
    return os.environ[f"TINAMOU_QEMU{which}"] if which else find_binary("x86_64")


def predicted(new: str, *names: str) -> list[dict[str, object]]:
    """What is said of these, in this order."""
    done = call("doctor", "--before-upgrade", new, "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == int(any(row["survives"] is False for row in rows.values())), done.stderr
    return [rows[name] for name in names]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("devices", SETS)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_what_is_predicted_happens(old: str, new: str, devices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = binary(new)
    monkeypatch.setenv("TINAMOU_QEMU", binary(old))
    with Machine(name="m", keep=True, **SETS[devices]) as machine:
        machine.run("echo here > /tmp/x")
        machine.checkpoint("saved", kind="portable")
        before = machine.record.process
        running, saved = predicted(target, "m", "saved")
        assert machine.record.process == before and machine.run("cat /tmp/x").text == "here"
        print(running, saved)
        assert running["tried"] == "a stand-in with its devices" or running["survives"] is False
        assert saved["tried"] == "its saved state" and saved["survives"] is not None
        assert happens(lambda: machine.upgrade(target)) == running["survives"]
        assert machine.run("cat /tmp/x").text == "here"
        monkeypatch.setenv("TINAMOU_QEMU", binary(old))
        if machine.record.process == before:
            machine.suspend()
            [suspended] = predicted(target, "m")
            assert (suspended["kind"], suspended["tried"]) == ("suspended", "its saved state")
            monkeypatch.setenv("TINAMOU_QEMU", target)
            assert happens(machine.resume) == suspended["survives"]
            monkeypatch.setenv("TINAMOU_QEMU", binary(old))
        machine.kill()
        monkeypatch.setenv("TINAMOU_QEMU", target)
        assert (call("checkpoints", "restore", "saved", "--name", "again").returncode == 0) == saved["survives"]
    for name in ("m", "again"):
        call("rm", "-f", name)
    tinamou("checkpoints", "rm", "-f", "saved")


def happens(work: object) -> bool:
    """Whether it goes well."""
    try:
        work()
    except TinamouError as error:
        print(error)
        return False
    return True


def test_a_qemu_that_lacks_a_device_is_found_out_and_nothing_is_left(open_folder: Path) -> None:
    """One that is like the installed one, but makes of one device another."""
    other = open_folder / "qemu-system-x86_64"
    swap = """for word; do shift; case $word in
*virtio-rng-pci*) set -- "$@" '{"driver":"pci-testdev","id":"other"}' ;; *) set -- "$@" "$word" ;; esac; done"""
    other.write_text(f'#!/bin/sh\ncase "$*" in *incoming*) {swap};; esac\nexec {find_binary("x86_64")} "$@"\n')
    other.chmod(0o755)
    with Machine(name="m", disks=[{"size": "8M"}]) as machine:
        [good] = predicted(find_binary("x86_64"), "m")
        assert (good["survives"], good["kind"], good["tried"]) == (True, "running", "a stand-in with its devices"), good
        assert "an upgrade suspends and resumes it" in str(good["why"])
        [bad] = predicted(str(other), "m")
        assert bad["survives"] is False and "virtio-rng" in str(bad["why"]), bad
        assert machine.run("echo on").text == "on"
        assert [one.name for one in machines.machines_dir().iterdir()] == ["m"]
    assert call("doctor", "--before-upgrade", str(other), "m").returncode == 110
    assert "does not exist" in call("doctor", "--before-upgrade", "/nowhere/qemu").stderr


def test_a_fork_that_runs_is_tried_as_what_it_is_now():
    """It was started for a state that came in; nothing comes into what is tried."""
    with Machine(name="m", net=[], forkable=True) as machine, machine.fork() as fork:
        [row] = predicted(find_binary("x86_64"), fork.name)
        assert (row["survives"], row["tried"]) == (True, "a stand-in with its devices"), row
        assert fork.upgrade().why == ""
        assert fork.run("echo on").text == "on"


@pytest.mark.slow
@pytest.mark.root
def test_a_package_is_tried_before_it_is_installed(tmp_path: Path) -> None:
    """The one apt has, by its name and by its file."""
    with Machine(name="m", net=[]):
        [row] = predicted("qemu-system-x86", "m")
        assert row["survives"] is True, row
        fetched = subprocess.run(["apt-get", "-qq", "download", "qemu-system-x86"], cwd=tmp_path, check=False)
        assert fetched.returncode == 0
        [file] = tmp_path.glob("*.deb")
        assert predicted(str(file), "m")[0]["survives"] is True
        assert "there is no QEMU" in call("doctor", "--before-upgrade", "base-files").stderr
