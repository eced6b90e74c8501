"""Whether the kernel merges equal pages of different guests, which is a side channel between them."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Memory merging (KSM)"
_FOLDER = "/sys/kernel/mm/ksm"


def check(seen: Inspection) -> Finding:
    """``run`` 1 merges; 0 has stopped but keeps what was merged; machines opt out one by one with memory.merge = false."""
    run, shared = seen.files.read(f"{_FOLDER}/run"), seen.files.integer(f"{_FOLDER}/pages_sharing") or 0
    if run is None:
        return unknown(f"{_FOLDER} is missing: the kernel has no KSM")
    if run != "1" and not shared:
        return good(f"{_FOLDER}/run = {run}, no page is shared")
    text = "echo 2 > /sys/kernel/mm/ksm/run stops it and takes merged pages apart; machines never take part on their own"
    state = "merging" if run == "1" else "stopped"
    return warning(
        f"{state}, {shared} pages shared: the timing of a write tells what others hold",
        text,
        Remedy((f"{_FOLDER}/run",), "2"),
    )
