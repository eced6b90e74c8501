"""One machine at one moment: the command, the API, the metrics and the page say the same numbers of it."""

from __future__ import annotations

import html
import json
import os
import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from service_here import Served, operation, serving
from typed import eventually, tinamou

pytestmark = pytest.mark.vm
ROOT = os.geteuid() == 0
NET = {"type": "bridge", "network": "numbers"} if ROOT else {"type": "user"}
"""Of the host's interfaces alone there are counters that need no guest."""
SPEC = {"name": "web", "cpus": 2, "memory": "256M", "disk": [{"size": "64M"}], "net": [NET]}


def said(*words: str) -> Any:
    return json.loads(tinamou(*words, "--json"))


def of_stats(one: dict[str, Any]) -> dict[str, Any]:
    """What ``tinamou stats`` and the API tell alike, under the names of the metrics; nothing where it is not known."""
    guest, host = one["memory"]["guest"] or {}, one["memory"]["host"]
    by_card: dict[str, Any] = {}
    for row in one["network"]:
        by_card |= {f"{row['nic']} {way}": row[way] for way in ("received", "sent") if row["seen"] == "host" and way in row}
    disks = {
        f"{disk['name']} {key}": disk[key]
        for disk in one["disks"]
        for key in ("read_bytes", "written_bytes", "reads", "writes", "allocated")
    }
    return {
        "state": one["state"],
        "vcpus": one["cpu"]["vcpus"],
        "memory": one["memory"]["size"],
        "balloon": one["memory"]["balloon"],
        "available": guest.get("available"),
        "used": guest.get("used"),
        "resident": host["rss"],
        **disks,
        **by_card,
    }


def of_metrics(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {
        **{"vcpus": "vcpus", "memory_bytes": "memory", "balloon_bytes": "balloon", "resident_bytes": "resident"},
        **{"guest_available_bytes": "available", "guest_used_bytes": "used"},
    }
    on_disk = {f"{key}_total": key for key in ("read_bytes", "written_bytes", "reads", "writes")}
    on_disk["allocated_bytes"] = "allocated"
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == "tinamou_machines" and one.value:
                found["state"] = one.labels["state"]
            kind = one.name.removeprefix("tinamou_vm_")
            if one.labels.get("machine") != "web":
                continue
            if kind in names:
                found[names[kind]] = int(one.value)
            elif kind.removeprefix("disk_") in on_disk:
                found[f"{one.labels['disk']} {on_disk[kind.removeprefix('disk_')]}"] = int(one.value)
            elif way := re.fullmatch(r"network_(received|sent)_bytes_total", kind):
                found[f"{one.labels['nic']} {way[1]}"] = int(one.value)
    return found


def of_page(text: str) -> tuple[str, int, int]:
    """The state, and the memory on the host and the machine's own in MiB, as a person reads them."""
    row = re.search(r'<tr data-name="web">.*?</tr>', html.unescape(text), re.DOTALL)
    assert row is not None
    state, memory = re.search(r'class="state (\w+)"', row[0]), re.search(r">(\d+)M of (\d+)M", row[0])
    assert state is not None and memory is not None, row[0]
    return state[1], int(memory[1]), int(memory[2])


def everywhere(served: Served) -> dict[str, dict[str, Any]]:
    """Door → its numbers."""
    served.ask("GET", "/v1/findings")  # guests are asked for their memory
    page = of_page(served.ask("GET", "/page/rows").body.decode())
    found = {"metrics": of_metrics(served.ask("GET", "/metrics").body.decode())}
    found["API"] = of_stats(served.ask("GET", "/v1/machines/web/stats").json)
    [found["command"]] = [of_stats(one) for one in said("stats", "web")]
    rows = {"ls": said("ls"), "API's list": served.ask("GET", "/v1/machines").json["machines"]}
    for door, listed in rows.items():
        [row] = listed
        found[door] = {"state": row["state"], "vcpus": row["cpus"], "memory": row["memory"]}
    shown = served.ask("GET", "/v1/machines/web").json
    found["API's machine"] = {"state": shown["state"], "vcpus": shown["cpus"], "memory": shown["memory"]}
    resident, memory = found["API"]["resident"], found["API"]["memory"]
    found["page"] = {"state": page[0]}
    if page[1:] == (round(resident / (1 << 20)), memory >> 20):
        found["page"] |= {"resident": resident, "memory": memory}
    return found


def test_every_door_says_the_same_numbers(state):
    """A guest that stands still, so that one moment is long enough to be asked at each door."""
    with serving(state) as served:
        made = operation(served, served.ask("POST", "/v1/machines", {"spec": SPEC}))
        assert made["state"] == "done", made
        try:
            write = "dd if=/dev/zero of=/dev/vda bs=64k count=16; sync"
            assert served.ask("POST", "/v1/machines/web/run", {"argv": ["sh", "-c", write]}).json["status"] == 0
            eventually(lambda: of_stats(said("stats", "web")[0])["available"], "what the guest says of its memory")
            assert operation(served, served.ask("POST", "/v1/machines/web/pause"))["state"] == "done"

            def alike() -> bool:
                nonlocal seen
                seen = everywhere(served)
                return all(one == {key: seen["command"][key] for key in one} for one in seen.values())

            seen: dict[str, dict[str, Any]] = {}
            try:
                eventually(alike, "the same numbers")
            except AssertionError:
                raise AssertionError(json.dumps(seen, indent=1)) from None
            command = seen["command"]
            assert command["state"] == "paused" and command["vcpus"] == 2 and command["disk0 written_bytes"] >= 1 << 20
            assert seen["metrics"].keys() == seen["API"].keys() == command.keys()
            assert seen["page"].keys() == {"state", "resident", "memory"}
            assert 0 < command["available"] < command["memory"]
            assert not ROOT or command["net0 received"] > 0
        finally:
            assert operation(served, served.ask("DELETE", "/v1/machines/web?force=true"))["state"] == "done"
