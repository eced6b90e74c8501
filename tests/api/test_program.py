"""A user's program against the public names alone: it is typed, and it does what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinamou

PROGRAM = Path(__file__).with_name("program.py")


def checked(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words, str(path)], capture_output=True, text=True, check=False)


def test_it_names_only_what_is_public():
    tree = ast.parse(PROGRAM.read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tinamou")
    ]
    assert {node.module for node in imports} == {"tinamou"}
    named = {alias.name for node in imports for alias in node.names}
    assert named <= set(tinamou.__all__)


def test_it_is_typed(tmp_path):
    done = checked(PROGRAM, "mypy", "--strict", "--no-incremental")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text(PROGRAM.read_text().replace('vm.disks.add(size=Size.parse("32M"))', "vm.disks.add(32).pop()"))
    assert checked(wrong, "mypy", "--strict", "--no-incremental").returncode == 1


@pytest.mark.vm
@pytest.mark.usefixtures("state")
def test_it_does_what_it_says():
    done = subprocess.run([sys.executable, PROGRAM, "prog"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["disk1 net0 2 first", "prog moment"]
    with tinamou.open("prog") as vm:
        vm.remove(force=True)
    for one in tinamou.checkpoints():
        from tinamou.machine.checkpoints import remove

        remove(one.name, force=True)
    assert tinamou.machines() == []


def test_two_hosts_in_one_process(tmp_path):
    """What is made on one is not seen on the other, however it is called."""
    from tinamou.state.machines import making
    from tinamou.state.record import Record, create

    plain = tinamou.Host.default()
    hosts = [tinamou.Host(tmp_path / name, plain.cache, plain.run, tmp_path / f"{name}-units") for name in ("a", "b")]
    for host in hosts:
        with host.active(), making(f"on-{host.state.name}") as folder:
            create(Record(folder.name, str(folder), {}, image="tiny"))
    for host in hosts:
        with host.active():
            (machine,) = tinamou.machines()
        assert machine.name == f"on-{host.state.name}"
        assert machine.snapshots.list() == ()
    with hosts[0].active(), pytest.raises(tinamou.StateError, match="no machine named on-b"):
        tinamou.open("on-b")
    assert hosts[0].environment()["TINAMOU_STATE"] == str(tmp_path / "a")
