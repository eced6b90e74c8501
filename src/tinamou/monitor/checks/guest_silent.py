"""Whether a guest that answered still does."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown
from tinamou.monitor.observation import NO_DRIVER, HostObservation, Observation

TITLE = "Guest's answer"


def check(seen: Observation, host: HostObservation) -> Finding:
    """A machine that was left to itself had answered: it is started so. One that boots again has no drivers yet."""
    if seen.answers is None:
        return unknown(seen.unasked or "it was not asked")
    if seen.answers:
        return good("its agent answers")
    if seen.memory is not None and seen.memory.why == NO_DRIVER:
        return unknown("its drivers are not loaded: it boots")
    shown = "its agent does not answer any more, though the guest runs"
    fix = f"look at its console: tinamou console {seen.name}; if it is dead: tinamou reset {seen.name}"
    return bad(shown, fix)
