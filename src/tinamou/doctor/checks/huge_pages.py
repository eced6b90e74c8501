"""Whether memory for machines is held ready in huge pages."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection
from tinamou.units import Size

TITLE = "Huge pages"


def check(seen: Inspection) -> Finding:
    """Reads the pools of every size on every node; 1 GiB pages can seldom be had after boot."""
    pools = [(node.number, size, *counts) for node in seen.facts.nodes for size, counts in sorted(node.hugepages.items())]
    if not pools:
        return unknown("this kernel shows no huge page pools")
    held = [f"node {n}: {free} of {total} × {Size(size)} free" for n, size, total, free in pools if total]
    sizes = ", ".join(str(Size(size)) for size in sorted({size for _, size, _, _ in pools}))
    if held:
        return good("; ".join(held))
    text = "2M pages are reserved on demand (hugepages = 2M); for 1G pages boot with hugepagesz=1G hugepages=N"
    return info(f"none reserved; sizes of this host: {sizes}", text)
