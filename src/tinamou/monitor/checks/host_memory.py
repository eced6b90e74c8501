"""Whether the host has memory left, and who holds it."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown, warning
from tinamou.monitor.observation import HostObservation
from tinamou.units import Size

TITLE = "Host memory"
_SHOWN = 5


def check(host: HostObservation) -> Finding:
    """What is available without swapping, against the reserve the host should keep."""
    if not host.total:
        return unknown("/proc/meminfo cannot be read")
    shown = f"{host.available.short} of {host.total.short} available"
    if not host.short:
        return good(shown)
    waiting = f"; {host.pressure:.0f} % of the time everything waited for memory" if host.pressure else ""
    found = f"{shown}, {host.reserve.short} should stay{waiting}: {_arithmetic(host)}"
    fix = "stop a machine; tinamou watch --balance takes memory back from machines with a memory.floor"
    return bad(found, fix) if host.available < host.reserve // 2 else warning(found, fix)


def _arithmetic(host: HostObservation) -> str:
    """Who holds what, the largest first; all parts together are what the host has."""
    ordered = sorted(host.held.items(), key=lambda one: (-one[1], one[0]))
    parts = [f"{name} holds {size.short}{_more(host, name)}" for name, size in ordered[:_SHOWN]]
    if rest := ordered[_SHOWN:]:
        parts.append(f"{len(rest)} more machines {Size(sum(size for _, size in rest)).short}")
    others = host.total - host.available - sum(host.held.values())
    return ", ".join([*parts, f"everything else {Size(max(0, others)).short}"])


def _more(host: HostObservation, name: str) -> str:
    promised = host.promised.get(name, Size(0))
    return f" (and may take {promised.short} more)" if promised >= 1 << 20 else ""
