"""Which accelerator really runs guests."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Accelerator, by trial"


def check(seen: Inspection) -> Finding:
    """Runs a micro guest in every accelerator of this host and binary."""
    facts = seen.accel()
    if facts is None or not facts.trials:
        return unknown("nothing was tried: no QEMU for this host's architecture")
    shown = "; ".join(
        f"{t.accel} {'works' if t.works else 'fails'} ({t.milliseconds:.0f} ms, {t.what})" for t in facts.trials
    )
    best = facts.best()
    if best is None:
        return warning(shown, "install QEMU with at least the tcg accelerator")
    if best.accel != "tcg":
        return good(shown)
    failed = next((trial for trial in facts.trials if not trial.works), None)
    fix = (
        failed.fix
        if failed and failed.fix
        else "run on hardware with virtualization, or let the outer hypervisor pass it on"
    )
    return warning(f"guests are emulated: {shown}", fix)
