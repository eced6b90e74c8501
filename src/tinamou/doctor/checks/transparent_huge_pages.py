"""Whether ordinary guest memory may be backed by huge pages."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Transparent huge pages"
_PATH = "/sys/kernel/mm/transparent_hugepage/enabled"


def check(seen: Inspection) -> Finding:
    """QEMU asks for them by madvise, so ``madvise`` is as good as ``always`` for guests."""
    mode = seen.facts.thp
    if not mode:
        return unknown(f"{_PATH} is missing")
    if mode == "never":
        return warning(f"{_PATH}: never", f"echo madvise > {_PATH}", Remedy((_PATH,), "madvise"))
    return good(f"{_PATH}: {mode}")
