"""The verb ``place``: this host, another one, a silent one, recorded ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from host_trees import Tree
from sshd_here import DEADLINE, Sshd

from tinamou.fleet import hosts

SMALL = 'name = "m"\nmemory = "64M"\n'


@pytest.fixture
def machine(tmp_path: Path) -> str:
    path = tmp_path / "m.toml"
    path.write_text(SMALL)
    return str(path)


def place(*words: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "tinamou", "place", *words]
    return subprocess.run(argv, capture_output=True, timeout=DEADLINE, check=False)


def test_of_this_host_and_another_and_a_silent_one(machine: str, server: Sshd, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    hosts.add(server.host(state=there))
    hosts.add(server.host("gone", port=1))
    done = place(machine, "--json")
    told = json.loads(done.stdout)
    assert told["host"] in ("here", "far")
    assert {one["host"]: bool(one["fit"]) for one in told["hosts"]} == {"here": True, "far": True, "gone": False}
    assert b"silent: gone" in done.stderr
    assert place(machine, "--host", "far").stdout == b"far\n"
    assert place(machine, "--host", "gone").returncode == 112


def test_of_recorded_hosts_with_a_why_for_each(machine: str, tmp_path: Path) -> None:
    Tree(tmp_path / "small", cores=1, memory_gib=1)
    Tree(tmp_path / "large", cores=8, memory_gib=8)
    trees = [word for name in ("small", "large") for word in ("--tree", str(tmp_path / name))]
    assert place(machine, *trees).stdout == b"small\n"
    Path(machine).write_text(SMALL + "cpus = 4\n")
    done = place(machine, "--explain", *trees).stdout.decode().splitlines()
    assert [line.split()[:2] for line in done[1:]] == [["large", "yes"], ["small", "no"]]
    assert done[2].endswith("4 CPUs are more than the 1 left")
    Path(machine).write_text(SMALL + "cpus = 40\n")
    done = place(machine, *trees)
    assert done.returncode == 112 and b"no host has room" in done.stderr and b"40 CPUs are more than the 8" in done.stderr
