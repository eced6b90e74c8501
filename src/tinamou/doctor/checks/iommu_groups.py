"""Which devices share an IOMMU group: they can only be handed over together."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "IOMMU groups"
_FOLDER = "/sys/kernel/iommu_groups"


def check(seen: Inspection) -> Finding:
    """Lists the groups with more than one device that is not a bridge; says where they are isolation in name alone."""
    groups = {number: _endpoints(seen, number) for number in seen.files.names(_FOLDER)}
    if not groups:
        return unknown("there are no groups: no IOMMU is on")
    if told := (seen.command_line() or {}).get("pcie_acs_override"):
        text = "leave pcie_acs_override out, and give away what is in one group together, or use slots behind ports with ACS"
        return warning(f"{len(groups)} groups that are pretended (pcie_acs_override={told})", text)
    shared = [f"{number}: {' '.join(devices)}" for number, devices in groups.items() if len(devices) > 1]
    alone = sum(len(devices) == 1 for devices in groups.values())
    if not shared:
        return good(f"{alone} devices, each in a group of its own")
    text = "give all devices of a group to one machine, or move the card to a slot behind its own root port"
    return info(f"{alone} devices alone; together: {'; '.join(shared[:8])}", text)


def _endpoints(seen: Inspection, group: str) -> list[str]:
    devices = seen.files.names(f"{_FOLDER}/{group}/devices")
    return [
        name for name in devices if not (seen.files.read(f"/sys/bus/pci/devices/{name}/class") or "").startswith("0x0604")
    ]
