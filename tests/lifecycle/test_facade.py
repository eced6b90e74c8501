"""What a program holds of a machine, beside a QEMU that computes nothing: what each call returns, refuses and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from typed import eventually

import tinamou
from tinamou.errors import SpecError, StateError
from tinamou.machine import cards, life, receipts
from tinamou.machine.connected import Connected
from tinamou.machine.reconcile import reconcile
from tinamou.machine.starting import plan_again
from tinamou.machine.walls import walls_of
from tinamou.operations import machines as operations
from tinamou.spec import load_spec
from tinamou.state.machines import find
from tinamou.state.record import Record

pytestmark = pytest.mark.vm

SPEC = {"name": "m", "disk": [{"size": "8M"}], "net": ["passt"], "memory": {"size": "192M"}}


@pytest.fixture
def running(fake_qemu: Path) -> Record:
    launched = asyncio.run(operations.launch(load_spec(SPEC), wait=False))
    assert launched.waits == "nobody waited for it" and launched.record.name == "m"
    assert launched.record.running and not launched.record.owned and not launched.record.ephemeral
    return launched.record


def kinds(held: list[receipts.Holding]) -> set[str]:
    return {one.kind for one in held}


def test_what_it_holds_is_told_and_given_back(running: Record, leftovers: Leftovers) -> None:
    held = receipts.holdings()
    assert {one.machine for one in held} == {"m"} and all(one.running for one in held)
    said = {one.kind: one.what for one in held}
    user = f", user {running.uid}" if running.uid is not None else ""
    assert said["process"] == f"QEMU, process {running.pid}{user}"
    assert said["helper"].startswith("passt, process ") and said["files"].endswith(f" MiB in {running.directory}")
    assert [(one.name, f"process {one.pid}" in said["process"] + said["helper"]) for one in walls_of(running)] == [
        ("QEMU", True),
        ("passt", True),
    ]
    assert asyncio.run(operations.stop("m")) is True
    held = receipts.holdings()
    assert kinds(held) == {"files"} and not any(one.running for one in held)
    assert not find("m").running and find("m").pid == 0
    asyncio.run(operations.remove(["m"]))
    assert receipts.holdings() == [] and leftovers.settle() == []


def test_a_helper_that_has_ended_is_told(running: Record) -> None:
    [helper] = [one for one in receipts.holdings() if one.kind == "helper"]
    os.kill(int(helper.what.rpartition(" ")[2]), signal.SIGKILL)
    eventually(lambda: "passt, which has ended" in [one.what for one in receipts.holdings()], "the end of passt")
    asyncio.run(operations.kill("m"))


def test_a_guest_that_does_not_go_loses_its_power(fake_qemu: Path, leftovers: Leftovers) -> None:
    fake_qemu.write_text(fake_qemu.read_text().replace('"system_powerdown" | "quit"', '"quit"'))
    asyncio.run(operations.launch(load_spec(SPEC), wait=False))
    assert asyncio.run(operations.stop("m", grace=1)) is False
    assert not find("m").running
    with pytest.raises(StateError, match="m is not running"):
        asyncio.run(operations.stop("m"))
    asyncio.run(operations.remove(["m"]))
    assert leftovers.settle() == []


@pytest.mark.usefixtures("fake_qemu")
def test_a_launch_that_fails_leaves_neither_a_machine_nor_a_line(
    monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    async def full(_: Connected) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def launched() -> set[str]:
        """The sockets this process holds once it has failed."""
        before = sockets()
        with pytest.raises(OSError, match="No space left"):
            await operations.launch(load_spec(SPEC), wait=False)
        return sockets() - before

    monkeypatch.setattr(Connected, "release", full)
    assert asyncio.run(launched()) == set()
    assert tinamou.machines() == [] and leftovers.settle() == []


def sockets() -> set[str]:
    links = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the folder that is read
            links.add(str(one.readlink()))
    return {link for link in links if link.startswith("socket:")}


def test_by_name(running: Record, leftovers: Leftovers) -> None:
    assert [one.name for one in tinamou.machines()] == ["m"]
    machine = tinamou.open("m")
    assert machine.running and machine.name == "m" and machine.spec.memory.size == load_spec(SPEC).memory.size
    with pytest.raises(StateError, match="m is running already"):
        machine.start()
    with pytest.raises(StateError, match="m is running"):
        machine.remove()
    assert [one.name for one in machine.nics.list()] == ["net0"]
    machine.nics.add("passt")
    assert [cards.number_of(find("m"), text) for text in ("net1", "net1-dev", "1")] == [1, 1, 1]
    with pytest.raises(StateError, match="has no card net7") as refused:
        cards.number_of(find("m"), "net7")
    assert refused.value.why == "it has net0, net1"
    again = plan_again("m")
    assert again is not None and {"net0", "net1"} <= {str(one.props.get("id")) for one in again.elements}
    machine.pause()
    assert asyncio.run(life.state_of(find("m"))) == "paused"
    machine.resume()
    assert asyncio.run(life.state_of(find("m"))) == "running"
    machine.stop()
    assert not machine.running
    machine.remove()
    assert tinamou.machines() == [] and plan_again("m") is None and leftovers.settle() == []


def test_a_machine_of_a_block_is_gone_with_it(fake_qemu: Path, leftovers: Leftovers) -> None:
    with tinamou.Machine(wait=False, **{key: value for key, value in SPEC.items() if key != "name"}) as machine:
        assert machine.running and find(machine.name).ephemeral and find(machine.name).owned
        assert [one.name for one in tinamou.machines()] == [machine.name]
    assert tinamou.machines() == [] and leftovers.settle() == []


def test_what_a_killed_qemu_leaves_is_given_back(running: Record, leftovers: Leftovers) -> None:
    os.kill(running.pid, signal.SIGKILL)
    eventually(lambda: not find("m").running, "the end of QEMU")
    [told] = reconcile()
    assert told.startswith("machine m ") and told.endswith("it is stopped now")
    assert kinds(receipts.holdings()) == {"files"} and reconcile() == []
    record = find("m")
    assert (record.pid, record.owner_pid, list(record.path.glob("*.sock"))) == (0, 0, [])
    asyncio.run(operations.remove(["m"], force=True))
    assert leftovers.settle() == []


def test_a_record_without_its_starter_is_cleared(running: Record, leftovers: Leftovers) -> None:
    """As a command leaves it that was killed between its claim and QEMU's start; and one that was to end with it."""
    asyncio.run(operations.kill("m"))
    path = find("m").file("machine.json")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "owner_pid": os.getpid(), "owner_started": 1}))
    assert len(reconcile()) == 1 and find("m").owner_pid == 0
    assert reconcile() == []
    path.write_text(json.dumps({**whole, "ephemeral": True}))
    [told] = reconcile()
    assert told.endswith("it is removed now") and not path.parent.exists()
    assert leftovers.settle() == []


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda vm: vm.fork("name"), "count = 'name': it is not a whole number"),
        (lambda vm: vm.stop(grace="1s"), "grace = '1s': it is not a number"),
        (lambda vm: vm.run("true", timeout="1"), "timeout = '1': it is not a number"),
        (lambda vm: vm.checkpoint(5), "name = 5: it is not a text"),
        (lambda vm: vm.snapshots.create(5), "name = 5: it is not a text"),
        (lambda vm: vm.disks.remove(0), "name = 0: it is not a text"),
        (lambda vm: vm.type(b"x"), "text = b'x': it is not a text"),
    ],
    ids=["fork", "stop", "run", "checkpoint", "snapshot", "disk", "type"],
)
def test_a_value_of_another_kind_is_refused_by_name(running: Record, call: Callable[[Any], object], named: str) -> None:
    machine = tinamou.open("m")
    with pytest.raises(SpecError) as refused:
        call(machine)
    assert named in str(refused.value) and machine.running
    machine.kill()
