"""Which QEMU is used, and whether it is one with a known trap."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "QEMU"


def check(seen: Inspection) -> Finding:
    """Compares the binary with the list of known-bad versions and combinations."""
    facts = seen.qemu()
    if facts is None:
        return unknown("no QEMU for this host's architecture was examined")
    shown = f"{facts.binary} {'.'.join(map(str, facts.version))}, accelerators {', '.join(facts.accels) or 'none'}"
    if not facts.accels:
        return bad(f"{shown}: no accelerator", "install the full package, for example qemu-system-x86")
    missing = [name for name in ("type:virtio-blk-pci", "type:virtio-net-pci", "type:virtio-rng-pci") if not facts.has(name)]
    if missing and facts.types:
        return warning(
            f"{shown}: built without {', '.join(name.partition(':')[2] for name in missing)}", "install a full build"
        )
    traps = [text for feature, absent, text in _TRAPS if facts.has(feature) is not absent]
    return (
        warning(f"{shown}: {'; '.join(traps)}", "use a newer QEMU where this matters")
        if traps and facts.types
        else good(shown)
    )


_TRAPS: tuple[tuple[str, bool, str], ...] = (
    ("netdev:stream", True, "older than 7.2: no stream network backend, so no passt"),
    ("property:memory-backend-file.share", True, "memory backends cannot be shared: no instant fork"),
)
"""(feature, trap when absent, what it means)."""
