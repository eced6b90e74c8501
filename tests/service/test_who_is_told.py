"""What is told to whom: numbers of a caller's own machines alone, and of machines whose descriptions nobody can read."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

from tinamou.machine.listing import addresses_of
from tinamou.service import reading
from tinamou.service.auth import Caller
from tinamou.service.lookout import Seen
from tinamou.service.metrics import Metrics
from tinamou.state.record import Record
from tinamou.system.spawn import process_of
from tinamou.units import CpuSet

ALL, SOME = Caller("token:all"), Caller("token:ci", frozenset({"stats", "doctor"}), ("ci-*",))


def running(name: str, **spec: Any) -> Record:
    """A machine whose QEMU is this process, which answers nothing."""
    mine = {"pid": os.getpid(), "started": process_of(os.getpid()).started}
    return Record(name=name, directory="/nowhere", spec=spec, image="tiny", arch="x86_64", created=1.0, **mine)


def metrics(*records: Record) -> Metrics:
    async def seen() -> Seen:
        return Seen(0.0, [{"name": one.name, "state": "running"} for one in records], records)

    return Metrics(SimpleNamespace(seen=seen))  # type: ignore[arg-type]


def test_a_token_for_some_machines_is_told_the_numbers_of_those(state):
    async def asked() -> list[str]:
        numbers = metrics(running("ci-1"), running("web"))
        numbers.ended({"verb": "start", "state": "done", "started": 1.0, "ended": 2.0})
        return [(await numbers.text(caller)).decode() for caller in (SOME, ALL)]

    some, every = asyncio.run(asked())
    assert 'tinamou_vm_vcpus{machine="ci-1"}' in some
    assert 'machine="web"' in every and "tinamou_machines{" in every and "tinamou_operation_seconds_count{" in every
    for text in ("web", "tinamou_machines", "tinamou_host", "tinamou_operation_seconds"):
        assert text not in some, text


def test_who_holds_the_cpus_is_told_of_machines_that_may_be_seen(monkeypatch):
    monkeypatch.setattr(reading, "leased", lambda _: {"ci-1": CpuSet({1}), "web": CpuSet({2})})
    assert set(reading.held_by(SOME)) == {"ci-1"}
    assert set(reading.held_by(ALL)) == {"ci-1", "web"}


def test_a_description_nobody_can_read_keeps_no_other_from_being_counted(state):
    broken = running("broken", cpu={"count": "many"}, memory={"size": "?"}, net=[{"type": "carrier pigeon"}], no=1)

    async def asked() -> tuple[str, dict[str, Any]]:
        numbers = metrics(broken, running("web", cpu={"count": 3}, memory={"size": "1G"}))
        return (await numbers.text(ALL)).decode(), await numbers.numbers()

    text, figures = asyncio.run(asked())
    assert 'tinamou_vm_vcpus{machine="web"} 3.0' in text
    assert figures["web"]["memory"] == 1 << 30
    assert addresses_of(broken) == []
