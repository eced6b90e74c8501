"""What must be said of a fork reaches whoever takes it, whichever process made it: its record has it; without a guest."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinamou import SharedPool
from tinamou.blueprint import Plan
from tinamou.cli import pool, running
from tinamou.machine import acquire, forking, starting
from tinamou.machine.connected import Connected
from tinamou.machine.listing import described
from tinamou.machine.pooled import PoolClient
from tinamou.service.agents.e2b import making
from tinamou.snapshots.checkpoint import Checkpoint, File
from tinamou.snapshots.fork import Restored
from tinamou.spec import load_spec
from tinamou.state.record import Record, create, read
from tinamou.system.spawn import Process, process_of

NOTE = "the guest of web-1 has no address for net0 on bridge br0: no DHCP server answered; have it ask again"


def fork(state: Path, *notes: str) -> Record:
    """A fork of which this process is the QEMU."""
    folder = state / "machines/web-1"
    folder.mkdir(parents=True)
    me = process_of(os.getpid())
    return create(
        Record("web-1", str(folder), {"name": "web-1"}, image="tiny", pid=me.pid, started=me.started, notes=[*notes])
    )


def plan() -> Plan:
    return Plan("web-1", "x86_64", "qemu", "tcg", "q35", (), (), ())


def taken(monkeypatch: pytest.MonkeyPatch, record: Record) -> None:
    """The keeper hands this machine out."""

    async def claim(*_: object) -> tuple[Restored, None]:
        return Restored(record, plan(), None), None

    async def nothing(machine: Connected, *_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(PoolClient, "claim", claim)
    for name in ("release", "hang_up", "settled_agent"):
        monkeypatch.setattr(Connected, name, nothing)


def test_the_record_of_a_fork_has_what_must_be_said_of_it(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = File("", 0, 0, 0)
    source = Checkpoint("one", str(state), "portable", "web", 1.0, {}, {}, "", there, "", there, "")

    async def wake(_: Checkpoint, record: Record, *__: object, **___: object) -> Restored:
        return Restored(record, plan(), None, notes=(NOTE,))

    monkeypatch.setattr("tinamou.machine.portable.wake", wake)
    monkeypatch.setattr(forking, "not_set", lambda _: SimpleNamespace(note="its clock is late"))
    how: dict[str, Any] = {"dies_with_parent": True, "stopped": True, "same": True}
    restored = asyncio.run(forking._one(source, fork(state, "of an earlier life"), **how))
    kept = read(state / "machines/web-1")
    assert kept is not None and kept.notes == ["its clock is late", NOTE] == forking.notes_of([restored])
    assert described(kept)["notes"] == kept.notes


def test_a_start_of_its_own_makes_them_void(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, me = fork(state, NOTE), process_of(os.getpid())
    monkeypatch.setattr(starting, "_prepared", lambda *_: plan())
    monkeypatch.setattr(starting, "launch", lambda *_, **__: me)
    monkeypatch.setattr(starting, "run_facts", lambda _, process: {"pid": process.pid})
    clock = starting._Clock()
    began = starting._start(load_spec({"name": "web-1"}), record, None, clock, False)  # type: ignore[arg-type]
    assert isinstance(me, Process) and began.record.notes == [] and described(began.record)["notes"] is None


def test_who_takes_it_from_a_pool_is_told(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    taken(monkeypatch, fork(state, NOTE))
    pool.take("web")
    assert capsys.readouterr() == ("web-1\n", f"tinamou: {NOTE}\n")
    told: list[str] = []
    SharedPool("web", progress=lambda text, _: told.append(text)).take()
    assert told == [NOTE]


def test_who_runs_a_command_in_one_is_told(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    record = fork(state, NOTE)
    taken(monkeypatch, record)

    async def through(*_: object) -> int:
        return 7

    async def waking(*_: object, **__: object) -> tuple[Restored, None]:
        return Restored(record, plan(), None), None

    monkeypatch.setattr(running, "see_through", through)
    monkeypatch.setattr(acquire, "pooled_or_forked", waking)
    monkeypatch.setattr("tinamou.cli.after_dashes.words", ["true"])
    assert pool.run("web") == 7
    assert running.run(load_spec({"image": "tiny", "net": []}), ["true"], running.How(), warm=True) == 7
    assert capsys.readouterr().err.count(f"tinamou: {NOTE}\n") == 2


def test_the_services_log_has_it_for_a_sandbox(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = fork(state, NOTE)
    taken(monkeypatch, record)
    with caplog.at_level(logging.WARNING):
        asyncio.run(making.stays(Connected.of_fork(Restored(record, plan(), None))))
    assert [(one.getMessage(), one.__dict__["fields"]) for one in caplog.records] == [(NOTE, {"machine": "web-1"})]
    kept = read(record.path)
    assert kept is not None and kept.notes == [NOTE] and not kept.owner_pid
