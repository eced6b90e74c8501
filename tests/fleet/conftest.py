"""A real ssh server that the tests of other hosts share, and two hosts for those of moves."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftovers import Leftovers
from sshd_here import Sshd, sshd
from two_hosts import Two
from typed import call

from tinamou.fleet import hosts


@pytest.fixture(scope="session")
def server() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="sshd-") as folder, sshd(Path(folder)) as running:
        yield running


@pytest.fixture
def two(server: Sshd, state: Path) -> Iterator[Two]:
    folder = Path(tempfile.mkdtemp(prefix="tn-", dir="/tmp"))
    folder.chmod(0o755)
    both = Two(folder)
    hosts.add(server.host("there", state=folder))
    left = Leftovers(folder)
    try:
        yield both
    finally:
        call("rm", "-f", "web")
        call("rm", "-f", "web", **both.places)
        found = left.settle()
        left.clear()
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert found == []


@pytest.fixture
def back(two: Two, server: Sshd, state: Path) -> None:
    """The other host knows this one, too."""
    known = json.loads((state / "hosts.json").read_text())
    known["hosts"] = {"back": {**known["hosts"]["there"], "command": list(server.host(state=state).command)}}
    (two.there / "hosts.json").write_text(json.dumps(known))
    (two.there / "hosts.json").chmod(0o600)
