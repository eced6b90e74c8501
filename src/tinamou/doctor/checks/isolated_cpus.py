"""Whether CPUs are kept from the scheduler for machines to be pinned to."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Isolated CPUs"


def check(seen: Inspection) -> Finding:
    """Compares isolcpus with nohz_full: without a quiet tick, it still interrupts a guest 100 to 1000 times a second."""
    if seen.files.read("/sys/devices/system/cpu/isolated") is None:
        return unknown("/sys/devices/system/cpu/isolated is missing")
    isolated, quiet = seen.facts.isolated_cpus, seen.facts.nohz_full_cpus
    if not isolated:
        return good("none: the planner may use every CPU this process may use")
    if isolated - quiet:
        text = f"for the steadiest latency also boot with nohz_full={isolated} rcu_nocbs={isolated}"
        return info(f"CPUs {isolated} are isolated, their tick goes on; name them in pin to use them", text)
    return good(f"CPUs {isolated} are isolated and without tick; name them in pin to use them")
