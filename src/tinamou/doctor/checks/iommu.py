"""Whether devices can be handed to guests: the IOMMU is on."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "IOMMU"


def check(seen: Inspection) -> Finding:
    """An IOMMU that is on has an entry in /sys/class/iommu and groups in /sys/kernel/iommu_groups."""
    units, groups = seen.files.names("/sys/class/iommu"), seen.files.names("/sys/kernel/iommu_groups")
    if groups and units:
        return good(f"on: {', '.join(units)}, {len(groups)} groups")
    if not seen.files.exists("/sys/kernel/iommu_groups") and not seen.files.exists("/sys/class"):
        return unknown("neither /sys/class nor /sys/kernel/iommu_groups is there")
    tables = [t for t in ("DMAR", "IVRS", "IORT", "VIOT") if seen.files.exists(f"/sys/firmware/acpi/tables/{t}")]
    if tables:
        return info(
            f"off, though the firmware describes one ({', '.join(tables)}): no device can be passed through",
            "boot with intel_iommu=on iommu=pt (AMD and Arm: check the firmware setup)",
        )
    return info(
        "none: /sys/class/iommu and /sys/kernel/iommu_groups are empty and the firmware describes none; no device can be "
        "passed through",
        "switch on VT-d, AMD-Vi or the SMMU in the firmware setup; inside a guest, give it an emulated IOMMU",
    )
