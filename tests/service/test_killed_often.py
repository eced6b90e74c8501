"""The service killed a hundred times while it works: its clients go on by their operations' ids, its machines run on."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from service_here import Served, operation, started

from tinamou.snapshots.history import load
from tinamou.state.record import read

KILLS = 100
pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(3600)]


def begun(served: Served, number: int, key: str) -> str:
    """Ask for a snapshot of its own; the operation's id."""
    answer = served.ask("POST", "/v1/machines/web/snapshots", {"name": f"at-{number}"}, Idempotency_Key=key)
    assert answer.status in (200, 202), answer.body
    return str(answer.json["id"])


def test_operations_go_on_by_their_ids_and_machines_run_on(state: Path):
    """Each snapshot is asked for, the service killed some moments later, and the operation taken up by the next one."""
    moments, states, numbers = random.Random(17), dict.fromkeys(("done", "interrupted"), 0), []
    served = started(state)
    spec = {"name": "web", "memory": "128M", "disk": [{"size": "1M"}], "net": []}
    try:
        assert operation(served, served.ask("POST", "/v1/machines", {"spec": spec}))["state"] == "done"
        steady = read(state / "machines/web")
        assert steady is not None
        for number in range(KILLS):
            key = os.urandom(8).hex()
            numbers.append(begun(served, number, key))
            time.sleep(moments.uniform(0, 0.15))  # where in its work the service is killed is to differ
            served.kill()
            served.process.stderr.close()
            served = started(state)
            found = served.ask("GET", f"/v1/operations/{numbers[-1]}")
            assert found.status == 200 and found.json["state"] in states, found.body
            states[found.json["state"]] += 1
            if found.json["state"] == "interrupted":
                assert begun(served, number, key) == numbers[-1]
            ended = operation(served, served.ask("GET", f"/v1/operations/{numbers[-1]}"))
            assert ended["state"] == "done" and ended["result"]["name"] == f"at-{number}", str(ended)
            now = read(state / "machines/web")
            assert (now.pid, now.started) == (steady.pid, steady.started)
        assert len(set(numbers)) == KILLS
        names = [shot.name for shot in load(state / "machines/web").snapshots]
        assert names == [f"at-{number}" for number in range(KILLS)]
        assert served.ask("POST", "/v1/machines/web/run", {"argv": ["hostname"]}).json["out"] == "web\n"
        print(f"\nwhat the next service said of operations whose service was killed: {states}")
    finally:
        operation(served, served.ask("DELETE", "/v1/machines/web?force=true"))
        served.process.terminate()
        served.process.wait(120)
        served.process.stderr.close()
