"""A result as a table for people, and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence

from bench.framework import Result, Row, summary

__all__ = ["as_json", "as_text"]

_HEAD = ("", "rounds", "best ms", "median ms", "p99 ms", "× median", "× best", "bar")


def as_text(result: Result) -> str:
    """Title, figures in milliseconds, ratios to the baseline, bars, and what could not be measured."""
    load = f"{result.rounds} rounds in turns; load {result.load[0]:.1f} before, {result.load[1]:.1f} after"
    lines = [result.table.title, f"× = times faster than: {result.table.baseline}; {load}", ""]
    lines += _aligned([_HEAD, *(_cells(row) for row in summary(result))])
    lines += [f"not measured: {one.name}: {one.reason}" for one in result.table.missing]
    for name, reasons in result.failures.items():
        lines.append(f"failed {len(reasons)} times: {name}: {reasons[-1]}")
    return "\n".join([*lines, *(["", *result.table.notes] if result.table.notes else [])])


def _cells(row: Row) -> tuple[str, ...]:
    bars = "; ".join(f"{'pass' if kept else 'FAIL'} ({words})" for words, kept in row.bars)
    p99 = _milliseconds(row.p99) if row.p99 is not None else ""
    return (
        row.name,
        str(row.samples),
        _milliseconds(row.best),
        _milliseconds(row.median),
        p99,
        f"{row.ratio:.2f}" if row.ratio else "",
        f"{row.best_ratio:.2f}" if row.best_ratio else "",
        bars,
    )


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    aligned = []
    for row in rows:
        first, *figures, last = (cell.ljust(w) if at in (0, len(row) - 1) else cell.rjust(w)
                                 for at, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        aligned.append("  ".join([first, *figures, last]).rstrip())
    return aligned


def as_json(result: Result) -> dict[str, object]:
    """Everything, every sample included; seconds."""
    return {
        "title": result.table.title,
        "baseline": result.table.baseline,
        "notes": list(result.table.notes),
        "machine": {"cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(), "python": platform.python_version()},
        "load": list(result.load),
        "rounds": result.rounds,
        "rows": [
            {
                "name": row.name,
                "samples": result.of(row.name),
                "best": row.best,
                "median": row.median,
                "mean": statistics.fmean(result.of(row.name)),
                "p99": row.p99,
                "times_faster": row.ratio,
                "times_faster_best": row.best_ratio,
                "bars": [{"bar": words, "kept": kept} for words, kept in row.bars],
            }
            for row in summary(result)
        ],
        "missing": {one.name: one.reason for one in result.table.missing},
        "failures": result.failures,
    }
