"""Which accelerators work, for one QEMU binary on this host."""

from __future__ import annotations

from tinamou.facts import AccelFacts, QemuFacts, Trial

__all__ = ["probe_accel"]


def probe_accel(qemu: QemuFacts) -> AccelFacts:
    """TCG, which every binary here has; the others are not offered before they can be tried."""
    return AccelFacts(qemu.arch, (Trial("tcg", True, 0.0, "built into this QEMU"),))
