"""Whether a guest's kernel ended a process for lack of memory."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, info, unknown
from tinamou.monitor.console import Kill, kills
from tinamou.monitor.observation import HostObservation, Observation
from tinamou.units import Size

TITLE = "Out of memory in the guest"
_RECENT = 3600.0
"""Seconds for which it counts as something that is wrong."""


def check(seen: Observation, host: HostObservation) -> Finding:
    """The lines of the guest's out-of-memory killer on its console."""
    found = kills(seen.console)
    if not found:
        return good("no process was ended for lack of memory") if seen.console else unknown("its console has said nothing")
    last = found[-1]
    more = f", and {len(found) - 1} before it" if len(found) > 1 else ""
    group = "a control group in the guest" if last.group else "the guest"
    age = _age(last, seen.uptime)
    when = f" {_spoken(last.at)} after it booted" if last.at is not None else ""
    whom = f"{last.process} (process {last.number}, {Size(last.held).short})"
    shown = f"{group} ran out of memory{when}: its kernel ended {whom}{more}"
    if age is not None and age > _RECENT:
        return info(shown)
    limit = "raise the limit of the group in the guest" if last.group else f"give it more than {_size(seen)}: memory.size"
    return bad(shown, f"{limit}, or find out what {last.process} needs it for: tinamou logs {seen.name}")


def _size(seen: Observation) -> str:
    return str(seen.memory.size) if seen.memory else "it has"


def _age(kill: Kill, uptime: float) -> float | None:
    """Seconds ago by the guest's clock, which counts from its boot; a fork's counts from that of its parent."""
    return uptime - kill.at if kill.at is not None and kill.at <= uptime else None


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
