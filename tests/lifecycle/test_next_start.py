"""Disks that come with the next start, beside one that was plugged meanwhile: each is found by its number, none by place."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typed import call

from tinamou.machine.changing import changes_between
from tinamou.operations import machines
from tinamou.spec import load_spec
from tinamou.state.machines import find

pytestmark = pytest.mark.vm


@pytest.fixture
def web() -> Iterator[str]:
    """A real QEMU, of whose guest nothing is wanted."""
    spec = {"name": "web", "disk": [{"size": "8M"}], "net": [{"type": "user"}], "memory": {"size": "192M"}}
    asyncio.run(machines.launch(load_spec(spec), wait=False))
    yield "web"
    call("rm", "-f", "web")


def changed(*words: str) -> dict[str, str]:
    """Field → when it is what it is to be."""
    done = call("set", "web", *words, "--json")
    assert done.returncode == 0, done.stderr
    return {one["field"]: one["effect"] for one in json.loads(done.stdout)["changes"]}


def large(file: Path) -> int:
    said = subprocess.run(["qemu-img", "info", "-U", "--output=json", str(file)], check=True, capture_output=True).stdout
    return int(json.loads(said)["virtual-size"]) >> 20


def disks(spec: dict[str, Any]) -> list[tuple[int | None, str]]:
    return [(one.number, str(one.size)) for one in load_spec(spec).disk]


def test_a_disk_that_is_to_come_keeps_its_number(web: str) -> None:
    assert changed("disk+=size=16M,interface=sata") == {"disk[1]": "next start"}
    assert changed("disk+=size=24M") == {"disk[2]": "now"}
    now = find(web)
    assert disks(now.spec) == [(None, "8M"), (2, "24M")] and disks(now.later) == [(None, "8M"), (1, "16M"), (2, "24M")]
    assert changed("disk[1].size=32M", "disk[2].iops=100", "disk[2].size=40M") == {
        **{"disk[1].size": "next start", "disk[2].size": "now", "disk[2].iops": "now"},
    }
    assert large(now.path / "disk2.qcow2") == 40 and load_spec(find(web).spec).disk[1].iops == 100
    assert changed("disk[1].iops=50") == {"disk[1].iops": "next start"}
    assert call("kill", web).returncode == 0
    asyncio.run(machines.start(web, wait=False))
    assert [large(now.path / f"disk{number}.qcow2") for number in range(3)] == [8, 32, 40]
    assert changes_between(load_spec(find(web).spec), load_spec(find(web).next_spec)) == []


def test_a_card_that_is_to_come_is_changed_for_then(web: str) -> None:
    assert changed("net+=type=user,port=31") == {"net[1]": "next start"}
    assert changed("net[1].forward+=tcp:18098:80") == {"net[1].forward": "next start"}
    assert load_spec(find(web).later).net[1].forward == ("tcp:18098:80",)


def test_a_disk_that_is_to_come_is_taken_away_before(web: str) -> None:
    assert changed("disk+=size=16M,interface=sata") == {"disk[1]": "next start"}
    done = call("disk", "rm", web, "disk1")
    assert done.returncode == 0, done.stderr
    assert find(web).later == {} and disks(find(web).spec) == [(None, "8M")]
    assert "has no disk disk1" in call("disk", "rm", web, "disk1").stderr


def test_a_suspended_machines_disk_is_not_said_to_grow(web: str) -> None:
    """No start would make up for it: a file grows when it is told to, or not at all."""
    assert call("suspend", web).returncode == 0
    done = call("set", web, "disk[0].size=16M")
    assert done.returncode != 0 and "disk[0].size of a suspended machine stays" in done.stderr, done.stderr
    assert find(web).later == {} and large(find(web).path / "disk0.qcow2") == 8
    assert changed("cpu.count=2") == {"cpu.count": "next start"}
