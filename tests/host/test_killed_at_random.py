"""Machines started in parallel and killed at random moments leave the host as it was.

``TINAMOU_ROUNDS`` is how many rounds of 20 machines are played (2 unless it says otherwise). Many of them, and one of them
again: ``python tests/host/kill_rounds.py --rounds 200``, ``--first N``.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.machine.gather import resolve_image
from tinamou.spec import load_spec

ROUNDS = int(os.environ.get("TINAMOU_ROUNDS", "2"))
PLAYER = Path(__file__).with_name("kill_rounds.py")

pytestmark = [
    pytest.mark.usefixtures("whole_host"),
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(120 + 30 * ROUNDS),
]


def play(*words):
    missing = [tool for tool in ("unshare", "nft", "ip", "dnsmasq", "passt") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    resolve_image(load_spec({}), build=True)
    done = subprocess.run([sys.executable, str(PLAYER), *words], capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    return done.returncode, [row for row in rows if "round" in row], [row for row in rows if "failed" in row]


def test_killed_at_random():
    status, rows, failed = play("--rounds", str(ROUNDS))
    assert [row["left"] for row in rows] == [{}] * ROUNDS
    assert failed == []
    assert status == 0
    assert max(row["pages"] for row in rows) > 0, "nothing was ever taken"


def test_what_is_left_is_found():
    status, (row,), _ = play("--machines", "2", "--spoil")
    assert status == 1
    found = {kind: difference["new"] for kind, difference in row["left"].items()}
    assert found.keys() >= {"files", "interfaces", "packet filter", "mounts", "processes", "control groups", "kernel values"}
