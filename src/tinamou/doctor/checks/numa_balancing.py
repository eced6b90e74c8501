"""Whether the kernel moves memory between nodes behind the back of pinned machines."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Automatic NUMA balancing"
_PATH = "/proc/sys/kernel/numa_balancing"


def check(seen: Inspection) -> Finding:
    """Only matters on hosts with several nodes; bound memory is not moved, but its pages are unmapped to sample access."""
    value = seen.files.read(_PATH)
    nodes = [node for node in seen.facts.nodes if node.memory]
    if len(nodes) == 1:
        return good(f"one memory node, nothing to balance ({_PATH} = {value or 'missing'})")
    if value is None:
        return unknown(f"{_PATH} is missing")
    if value == "0":
        return good(f"off on {len(nodes)} nodes")
    text = f"when all machines are pinned: echo 0 > {_PATH}"
    return info(
        f"on ({value}) with {len(nodes)} nodes: it helps unpinned machines and costs pinned ones",
        text,
        Remedy((_PATH,), "0"),
    )
