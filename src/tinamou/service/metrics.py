"""The numbers at ``/metrics``, in OpenMetrics: machines, what they use of the host, operations and their durations.

How many lines there can be is bounded: machines beyond the first `_MOST` by name are counted together, verbs and ways to end
are those of a table, findings at most `tinamou.service.families.MOST_FINDINGS`. A scrape asks QEMU for counters alone, never
a guest, and at most once every `_FRESH` seconds; findings, for which guests are asked, are those of a while ago.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from tinamou.errors import TinamouError
from tinamou.late import dataclass, replace
from tinamou.machine.listing import size_of
from tinamou.monitor import processes
from tinamou.monitor.disks import disks_of
from tinamou.monitor.look import visit_to, within
from tinamou.monitor.observation import DiskObservation
from tinamou.monitor.states import LOOK_SECONDS
from tinamou.network.counters import counted
from tinamou.service.families import Sample, found, of_libvirt, of_machines
from tinamou.state.record import Record
from tinamou.system.rooted import Rooted

if TYPE_CHECKING:
    from tinamou.service.auth import Caller
    from tinamou.service.findings import Findings
    from tinamou.service.lookout import Lookout, Seen

__all__ = ["CONTENT_TYPE_LATEST", "VERBS", "Metrics", "Names"]

Names = Literal["tinamou", "libvirt", "both"]
"""Whose names numbers have."""

_MOST = 500
_FRESH = 5.0
_LATELY = 30
"""How many looks back a picture of a machine's numbers goes."""
_AT_ONCE = 16
"""Machines that are asked at the same time."""
VERBS = (
    *("create", "start", "restart", "stop", "kill", "reset", "pause", "resume", "suspend", "fork", "checkpoint", "rm"),
    *("snapshot", "revert", "snapshot rm", "link", "diagnose"),
)
"""The verbs of operations, each a label."""
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@dataclass(frozen=True)
class Look:
    """The running machines at one moment: those that are told one by one, and how many there were."""

    at: float
    samples: Sequence[Sample]
    running: int


class Metrics:
    """The numbers of one service."""

    def __init__(self, lookout: Lookout, findings: Findings | None = None) -> None:
        self._lookout = lookout
        self._findings = findings
        self._registry = CollectorRegistry(auto_describe=False)
        self._operations = Histogram(
            "tinamou_operation_seconds",
            "How long operations took, by verb and how they ended.",
            ("verb", "state"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._looks: list[Look] = []
        """The last one, and the one before."""
        self._lately: dict[str, deque[tuple[float, float]]] = {}
        """Machine → its processor, and its memory on the host, in per cent of its own at the last looks."""
        self._turn = asyncio.Lock()

    def ended(self, operation: dict[str, Any]) -> None:
        """An operation has ended, as plain data."""
        verb = operation["verb"] if operation["verb"] in VERBS else "other"
        taken = max(float(operation["ended"]) - float(operation["started"]), 0.0)
        self._operations.labels(verb, operation["state"]).observe(taken)

    async def text(self, caller: Caller, names: Names = "tinamou") -> bytes:
        """Those a caller may see, as they are scraped: totals and operations are for whoever may look at all machines.

        ``names`` are ours, those of libvirt's exporter, or both.
        """
        look, seen = await self._look(), await self._lookout.seen()
        mine = [one for one in look.samples if caller.may("stats", one.record.name)]
        whole = "*" in caller.machines
        registry = self._registry if whole and names != "libvirt" else CollectorRegistry(auto_describe=False)
        families: list[Metric] = [*of_libvirt(mine)] if names != "tinamou" else []
        if names != "libvirt":
            wrong = self._findings.lately() if self._findings else []
            mine = [self._asked(one) for one in mine]
            told = [one for one in wrong if (caller.may("stats", one["machine"]) if one["machine"] else whole)]
            families += [*(_totals(seen, look.running) if whole else ()), *of_machines(mine), found(told)]
        collected = _Families(families)
        registry.register(collected)
        try:
            return bytes(generate_latest(registry))  # type: ignore[no-untyped-call]
        finally:
            registry.unregister(collected)

    def _asked(self, one: Sample) -> Sample:
        """With what its guest said of its memory lately."""
        seen = self._findings.seen.get(one.record.name) if self._findings else None
        if seen is None:
            return one
        return replace(one, memory=seen.memory, pss=int(seen.held.pss) if seen.held and seen.held.pss is not None else None)

    async def numbers(self) -> dict[str, dict[str, Any]]:
        """Machine → the same numbers for people: processor in per cent of its own, now and ``lately``, with memory in
        per cent of what it was given; memory in bytes."""
        await self._look()
        return {name: {**one, "lately": [*self._lately.get(name, ())]} for name, one in self._for_people().items()}

    def _for_people(self) -> dict[str, dict[str, Any]]:
        first, last = self._looks[0], self._looks[-1]
        before = {one.record.name: one for one in first.samples}
        known = [one for one in last.samples if one.record.name in before]
        return {one.record.name: _numbers(one, before[one.record.name], last.at - first.at) for one in known}

    async def _look(self) -> Look:
        """What the running machines use, as of some seconds ago at most."""
        async with self._turn:
            if not self._looks or time.monotonic() - self._looks[-1].at >= _FRESH:
                running = [one for one in (await self._lookout.seen()).records if one.running]
                gate = asyncio.Semaphore(_AT_ONCE)
                samples = await asyncio.gather(*(_sample(one, gate) for one in running[:_MOST]))
                self._looks = [*self._looks[-1:], Look(time.monotonic(), samples, len(running))]
                told = {name: _shares(one) for name, one in self._for_people().items() if one["percent"] is not None}
                kept = {name: self._lately.get(name) or deque(maxlen=_LATELY) for name in told}
                for name, shares in told.items():
                    kept[name].append(shares)
                self._lately = kept
            return self._looks[-1]


def _numbers(now: Sample, before: Sample, seconds: float) -> dict[str, Any]:
    (cpus, memory), percent = size_of(now.record), None
    if seconds > 0 and now.seconds is not None and before.seconds is not None and now.record.pid == before.record.pid:
        percent = 100 * (now.seconds - before.seconds) / seconds / cpus
    return {"percent": percent, "resident": now.resident, "memory": memory}


def _shares(one: dict[str, Any]) -> tuple[float, float]:
    """Processor and memory on the host, in per cent of what the machine has."""
    return one["percent"], 100 * (one["resident"] or 0) / (one["memory"] or 1)


class _Families(Collector):
    """What was seen at one scrape."""

    def __init__(self, families: list[Metric]) -> None:
        self._all = families

    def collect(self) -> Iterable[Metric]:
        return self._all

    def describe(self) -> Iterable[Metric]:
        return []


async def _sample(record: Record, gate: asyncio.Semaphore) -> Sample:
    async with gate:
        files = Rooted()
        spent, held = processes.spent(files, record.pid), processes.held(files, record.pid, share=False)
        disks: tuple[DiskObservation, ...] = ()
        network: list[dict[str, Any]] = []
        try:
            disks = await within(LOOK_SECONDS, _disks(record))
            network = await counted(record, guest=False)
        except (TinamouError, OSError):  # it ends just now, or its QEMU does not answer: the others are told
            pass
        return Sample(record, spent.seconds if spent else None, int(held.rss) if held else None, disks, tuple(network))


async def _disks(record: Record) -> tuple[DiskObservation, ...]:
    async with await visit_to(record)() as session:
        return await disks_of(session, Path(record.directory), stopped=False)


def _totals(seen: Seen, running: int) -> Iterator[Metric]:
    states = GaugeMetricFamily("tinamou_machines", "Machines by what they do.", labels=["state"])
    for state, count in sorted(Counter(row["state"] for row in seen.rows).items()):
        states.add_metric([state], count)
    yield states
    left = max(running - _MOST, 0)
    yield GaugeMetricFamily("tinamou_machines_left_out", "Running machines beyond those told one by one.", left)
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    yield GaugeMetricFamily("tinamou_host_memory_free_bytes", "Memory of the host nobody uses.", pages * size)
