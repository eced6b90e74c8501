"""Whether the processor's frequency is managed for speed."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Frequency governor"
_CPU = "/sys/devices/system/cpu"


def check(seen: Inspection) -> Finding:
    """Reads the governor of every online CPU."""
    paths = [f"{_CPU}/cpu{number}/cpufreq/scaling_governor" for number in sorted(seen.facts.online_cpus)]
    found = {path: text for path in paths if (text := seen.files.read(path))}
    if not found:
        return unknown("no frequency driver: the firmware, or the hypervisor below, decides")
    slow = tuple(path for path, text in found.items() if text != "performance")
    kinds = ", ".join(sorted(set(found.values())))
    if not slow:
        return good(f"{kinds} on {len(found)} CPUs")
    offered = seen.files.read(slow[0].replace("scaling_governor", "scaling_available_governors")) or "performance"
    remedy = Remedy(slow, "performance") if "performance" in offered.split() else None
    return info(f"{kinds} on {len(found)} CPUs", "for steady latency: cpupower frequency-set -g performance", remedy)
