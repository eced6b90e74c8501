"""How old the newest replica of a machine's disks is, and whether that is older than was asked for."""

from __future__ import annotations

import time
from typing import Any

from tinamou.state.record import Record

__all__ = ["late", "replica_of", "wanted"]

_WORDS = {"hourly": 3600, "daily": 86400, "weekly": 7 * 86400, "monthly": 31 * 86400}


def wanted(record: Record) -> dict[str, Any]:
    """What its description says of replicas, ``to`` and ``every``; empty where it says nothing."""
    said = record.spec.get("replicate")
    return said if isinstance(said, dict) and said.get("to") else {}


def replica_of(record: Record) -> dict[str, Any] | None:
    """``host``, ``at`` (seconds since 1970) what moment it has the disks, ``age`` in seconds; None where there is none."""
    at = record.replicated.get("at")
    if not isinstance(at, int | float):
        return None
    return {"host": str(record.replicated.get("host", "")), "at": at, "age": max(0, int(time.time() - at))}


def late(record: Record) -> str:
    """What is to be said of a replica that is lacking, or is more than twice as old as was asked for; else empty."""
    said, newest = wanted(record), replica_of(record)
    if newest is None:
        return f"{said['to']} has no replica of it yet" if said else ""
    allowed = 2 * _seconds(str(said.get("every", "")))
    if not allowed or newest["age"] <= allowed:
        return ""
    return f"{newest['host']} has its disks as they were {newest['age']} s ago; asked for is {said['every']}"


def _seconds(every: str) -> int:
    """How long lies between two of them, 0 for what no description says."""
    count, unit = every.rstrip("minh"), every.lstrip("0123456789")
    return _WORDS.get(every) or (int(count) * (3600 if unit == "h" else 60) if count.isdigit() else 0)
