"""Whether the machines' budget is enough for what they need."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.monitor.observation import HostObservation
from tinamou.units import Size

TITLE = "Budget"


def check(host: HostObservation) -> Finding:
    """Needs and floors go before the budget: it is exceeded rather than a guest starved."""
    if host.budget is None:
        return good("none was given")
    if not host.needed:
        return unknown("no machine is known that it is for")
    needed = Size(sum(host.needed.values()))
    shown = f"the machines need {needed.short}, the budget is {host.budget.short}"
    if needed <= host.budget:
        return good(shown)
    ordered = sorted(host.needed.items(), key=lambda one: (-one[1], one[0]))
    parts = ", ".join(f"{name} {size.short}" for name, size in ordered)
    return warning(f"{shown}: {parts}", "raise --budget, lower memory.floor, or stop a machine")
