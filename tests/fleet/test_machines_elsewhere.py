"""Real machines on another host: a command's streams and status, and a machine that goes there as one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sshd_here import Sshd

from tinamou.fleet import hosts

pytestmark = pytest.mark.vm

LONG = 280.0


@pytest.fixture
def far(server: Sshd, state: Path) -> Path:
    """A host of that name is known; its state directory, below the test's own, which is looked through for what is left."""
    there = state / "there"
    there.mkdir(mode=0o755)
    hosts.add(server.host(state=there))
    return there


def tinamou(*words: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "tinamou", *words]
    return subprocess.run(argv, input=input, capture_output=True, timeout=LONG, check=False)


def test_a_command_in_a_machine_there(far: Path) -> None:
    done = tinamou("-H", "far", "run", "--", "sh", "-c", "tr a-z A-Z; exit 7", input=b"from here\n")
    assert (done.stdout, done.returncode) == (b"FROM HERE\n", 7), done.stderr


def test_a_machine_goes_there_as_one_file(far: Path, state: Path) -> None:
    assert tinamou("run", "-d", "--name", "shop", "--net", "none").returncode == 0
    assert tinamou("stop", "shop").returncode == 0
    packed = tinamou("export", "shop", "-")
    assert packed.returncode == 0, packed.stderr
    done = tinamou("-H", "far", "import", "-", input=packed.stdout)
    assert done.returncode == 0, done.stderr
    told = {one["host"]: one["machines"] for one in json.loads(tinamou("ls", "--all-hosts", "--json").stdout)}
    assert [[one["name"] for one in told[host]] for host in ("here", "far")] == [["shop"], ["shop"]]
    assert tinamou("-H", "far", "rm", "shop").returncode == tinamou("rm", "shop").returncode == 0
