"""Side-by-side measurements: ways to do the same thing, taken in turns, with medians, ratios and bars."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "AtLeast",
    "AtMost",
    "Bar",
    "Difference",
    "Missing",
    "Result",
    "Row",
    "Table",
    "Way",
    "Within",
    "measure",
    "summary",
]

P99_FROM = 100


@dataclass(frozen=True)
class Way:
    """One way to do it. ``run`` does it once and returns seconds by measure; the measure ``""`` is the way's own row."""

    name: str
    run: Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Missing:
    """A way that cannot be measured here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """A row made of two others: ``whole`` minus ``part``, round by round."""

    name: str
    whole: str
    part: str


@dataclass(frozen=True)
class AtMost:
    """The median of ``row`` must not be above ``seconds``."""

    row: str
    seconds: float


@dataclass(frozen=True)
class AtLeast:
    """The median of ``row`` must be ``times`` times shorter than the median of ``than``, or more."""

    row: str
    times: float
    than: str


@dataclass(frozen=True)
class Within:
    """The median of ``row`` must not be above ``times`` times the median of ``than``."""

    row: str
    times: float
    than: str


Bar = AtMost | AtLeast | Within


@dataclass(frozen=True)
class Table:
    """What is compared. ``baseline`` is the way every ratio is taken to, measure by measure."""

    title: str
    ways: Sequence[Way]
    baseline: str
    notes: Sequence[str] = ()
    missing: Sequence[Missing] = ()
    differences: Sequence[Difference] = ()
    bars: Sequence[Bar] = ()


@dataclass(frozen=True)
class Row:
    """The figures of one row, in seconds. ``p99`` is None below a hundred samples, ``ratio`` where there is no baseline.

    ``ratio`` is the baseline's median by this one's, ``best_ratio`` the same of the shortest times: how many times faster.
    """

    name: str
    samples: int
    best: float
    median: float
    p99: float | None
    ratio: float | None
    best_ratio: float | None
    bars: tuple[tuple[str, bool], ...]


@dataclass
class Result:
    """What one run of a table gave: seconds by row and round, None where the round has no such figure."""

    table: Table
    samples: dict[str, list[float | None]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    rounds: int = 0
    load: tuple[float, float] = (0.0, 0.0)

    def put(self, row: str, seconds: float) -> None:
        """Note a figure of the present round."""
        column = self.samples.setdefault(row, [])
        column += [None] * (self.rounds - len(column))
        column.append(seconds)

    def of(self, row: str) -> list[float]:
        """All figures of a row."""
        return [one for one in self.samples.get(row, []) if one is not None]


def row_name(way: str, measured: str) -> str:
    """``way``, or ``way: measure``."""
    return f"{way}: {measured}" if measured else way


def measure(table: Table, *, rounds: int, seconds: float = math.inf, said: Callable[[str], None] = lambda _: None) -> Result:
    """Take every way in turn, ``rounds`` times; no round is begun that would probably end after ``seconds``."""
    result = Result(table, load=(os.getloadavg()[0], 0.0))
    began, longest = time.monotonic(), 0.0
    while result.rounds < rounds and time.monotonic() - began + longest < seconds:
        start = time.monotonic()
        for way in table.ways:
            said(f"{table.title}: round {result.rounds + 1}, {way.name}")
            try:
                for measured, value in way.run().items():
                    result.put(row_name(way.name, measured), value)
            except Exception as error:
                result.failures.setdefault(way.name, []).append(f"{type(error).__name__}: {error}")
        _differ(result)
        result.rounds += 1
        longest = max(longest, time.monotonic() - start)
    result.load = (result.load[0], os.getloadavg()[0])
    return result


def _differ(result: Result) -> None:
    for one in result.table.differences:
        whole, part = (result.samples.get(row, []) for row in (one.whole, one.part))
        if len(whole) > result.rounds and len(part) > result.rounds:
            minuend, subtrahend = whole[-1], part[-1]
            if minuend is not None and subtrahend is not None:
                result.put(one.name, minuend - subtrahend)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def summary(result: Result) -> list[Row]:
    """The rows in the order they were first measured."""
    return [_row(result, name) for name in result.samples if result.of(name)]


def _row(result: Result, name: str) -> Row:
    values = result.of(name)
    reference = result.of(row_name(result.table.baseline, _measured(result.table, name)))
    comparable = bool(reference) and name not in {one.name for one in result.table.differences}
    median, best = statistics.median(values), min(values)
    return Row(
        name,
        len(values),
        best,
        median,
        percentile(values, 0.99) if len(values) >= P99_FROM else None,
        _times(statistics.median(reference), median) if comparable else None,
        _times(min(reference), best) if comparable else None,
        tuple(said for bar in result.table.bars if (said := _judge(result, bar, name)) is not None),
    )


def _measured(table: Table, row: str) -> str:
    """The measure a row shows of its way."""
    return next((row[len(way.name) + 2 :] for way in table.ways if row.startswith(f"{way.name}: ")), "")


def _times(reference: float, value: float) -> float | None:
    return reference / value if value > 0 else None


def _judge(result: Result, bar: Bar, name: str) -> tuple[str, bool] | None:
    """The bar in words and whether this row keeps it; None for a bar of another row, or one that cannot be judged."""
    if bar.row != name:
        return None
    median = statistics.median(result.of(name))
    if isinstance(bar, AtMost):
        return f"≤ {bar.seconds * 1000:g} ms", median <= bar.seconds
    other = result.of(bar.than)
    if not other:
        return None
    if isinstance(bar, Within):
        ratio = median / statistics.median(other)
        return f"{ratio:.2f} of ≤ {bar.times:g} × {bar.than}", ratio <= bar.times
    return f"{bar.times:g} × faster than {bar.than}", statistics.median(other) >= bar.times * median
