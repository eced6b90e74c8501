"""Whether the last check of a machine's disks found them whole, and is not long ago."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, info, unknown, warning
from tinamou.monitor.observation import HostObservation, Observation

TITLE = "Last check of disks"
_DAY = 86400.0
_OLD = 30 * _DAY


def check(seen: Observation, host: HostObservation) -> Finding:
    """The results that ``tinamou check`` keeps, a scheduled one too."""
    kept = seen.checked
    if kept is None:
        return info("its disks were never checked", f"tinamou snapshot schedule {seen.name} --check --every weekly")
    found = kept.get("findings")
    if not isinstance(found, list):
        return unknown("the kept results cannot be read")
    when = f"{seen.check_age / _DAY:.0f} days ago" if seen.check_age >= 2 * _DAY else f"{seen.check_age / 3600:.0f} h ago"
    errors = [one for one in found if one.get("severity") == "error"]
    if errors:
        shown = f"{len(errors)} errors {when}: {errors[0].get('file')}: {errors[0].get('what')}"
        return bad(shown, f"{errors[0].get('fix') or 'restore a backup'}; then tinamou check {seen.name}")
    if seen.check_age > _OLD:
        return warning(f"the disks were whole {when}: that is long ago", f"tinamou check {seen.name}")
    return good(f"the disks were whole {when}{'' if kept.get('deep') else ' (a quick check)'}")
