"""Whether the file systems under a machine's disks have room for what its guest may still write."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, bad, good, info, unknown, warning
from tinamou.monitor.observation import DiskObservation, HostObservation, Observation, Place
from tinamou.units import Size

TITLE = "Room for disks"
_LITTLE, _NOTHING = 10, 3
"""Per cent of the file system that is still free."""


def check(seen: Observation, host: HostObservation) -> Finding:
    """A disk takes room only once the guest has written it, so that more can be promised than there is."""
    if not seen.state:
        return unknown(seen.silent or "it does not run")
    places = {disk.place.device: disk.place for disk in seen.disks if disk.place}
    if seen.disks and not places:
        return unknown("the file systems of its disks cannot be asked")
    found = [
        _judged(place, [d for d in seen.disks if d.place and d.place.device == device]) for device, place in places.items()
    ]
    order = ("bad", "warning", "info", "good")
    return min(found, key=lambda one: order.index(str(one.severity)), default=good("it has no disks"))


def _judged(place: Place, disks: list[DiskObservation]) -> Finding:
    grow = Size(sum(disk.may_grow for disk in disks))
    names = ", ".join(disk.name for disk in disks)
    shown = f"{place.free.short} of {place.total.short} free below {place.path}, {names} may take {grow.short} more"
    if grow <= place.free:
        return good(shown)
    share = 100 * place.free / max(place.total, 1)
    fix = "make room: tinamou snapshot rm, tinamou image rm, fstrim in the guest; or use a larger file system"
    if share < _NOTHING or any(disk.status == "nospace" for disk in disks):  # what is left may be less than one request
        return bad(f"{shown}: it is nearly full, and a machine whose disk is full stands still", fix)
    if share < _LITTLE:
        return warning(f"{shown}: it will be full", fix)
    return info(f"{shown}: more was promised than there is", fix)
