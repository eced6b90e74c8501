"""Forks over a Ray cluster of four hosts: one host dies, its forks are made anew, kept machines are not touched."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_of_hosts import ROOT, Hosts, up
from typed import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.vm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not shutil.which("sshd", path="/usr/sbin"), reason="no sshd (openssh-server)"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray (pip install 'tinamou[ray]')"),
]
COUNT = int(os.environ.get("TINAMOU_RAY_FORKS", "24"))
BEGIN = "mkdir -p /tmp/ray; mount -t tmpfs tmpfs /tmp/ray; exec "
HEALTH = {"initial_delay_ms": 2000, "period_ms": 2000, "timeout_ms": 5000, "failure_threshold": 3}


@pytest.fixture
def four() -> Iterator[Hosts]:
    for hosts in up(4):
        for host in range(1, 5):
            start(hosts, host)
        yield hosts


def start(hosts: Hosts, host: int) -> None:
    """Have a host be a node of the cluster, the first one its head."""
    role = ["--head", "--port=6379", "--include-dashboard=false"] if host == 1 else ["--address=10.77.0.1:6379"]
    own = [f"RAY_health_check_{name}={value}" for name, value in HEALTH.items()]
    slots = json.dumps({"vm_slots": COUNT})
    words = [*hosts.words[:-3], *own, sys.executable, "-m", "ray.scripts.scripts", "start", *role, "--num-cpus=1"]
    words += [f"--node-ip-address=10.77.0.{host}", f"--node-name=h{host}", "--object-store-memory=200000000"]
    words += ["--disable-usage-stats", f"--resources={slots}"]
    done = hosts.script("run", str(host), "sh", "-c", f'{BEGIN}"$@"', "sh", *words, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_forks_of_a_node_that_dies_are_made_anew(four: Hosts) -> None:
    four.tinamou(1, "run", "-d", "--name", "kept", "--memory", "128M", "--net", "none")
    four.tinamou(2, "run", "-d", "--name", "kept", "--memory", "128M", "--net", "none")
    program = [*four.words[:-2], str(Path(__file__).with_name("ray_forks.py")), str(COUNT)]
    words = [str(ROOT / "script/hosts"), "run", "1", *program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=four.environment, **pipes) as driver:  # type: ignore[call-overload]

        def told() -> dict:
            line = ""
            while not line.startswith("{"):  # ray says something, too
                line = driver.stdout.readline()
                assert line, driver.stderr.read()
            print(line, flush=True)
            return json.loads(line)

        made = told()
        assert made["made"] == COUNT
        first = told()
        assert sum(first["nodes"].values()) == COUNT
        assert len(first["nodes"]) == 4
        assert "other programs have them" in told()["refused"]
        four.script("kill", "4")
        driver.stdin.write("\n")
        driver.stdin.flush()
        second = told()
        assert sum(second["nodes"].values()) == second["names"] == COUNT
        assert second["lost"] == COUNT // 4
        assert {first["names"][node] for node in second["nodes"]} == {"h1", "h2", "h3"}
        assert told()["moved"] == 0
        pooled = told()  # twelve commands, six at once, each in a machine that no other had
        assert (sum(pooled["pooled"].values()), len(pooled["pooled"]), pooled["forks"]) == (12, 3, 12)
        assert pooled["said"] == ["warm\n"]
        assert driver.wait(120) == 0, driver.stderr.read()
    for host in (1, 2, 3):
        kept = ["kept"] if host < 3 else []
        eventually(lambda host=host, kept=kept: names(four, host) == kept, f"nothing of it is left on h{host}")
    assert four.tinamou(2, "exec", "kept", "--", "echo", "on") == "on\n"


def names(hosts: Hosts, host: int) -> list[str]:
    return [one["name"] for one in json.loads(hosts.tinamou(host, "ls", "--json"))]
