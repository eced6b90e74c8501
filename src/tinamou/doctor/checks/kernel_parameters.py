"""Which parameters of the kernel command line matter to machines, and whether any weakens the host."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Kernel command line"
_RISKY = {
    "nokaslr": "", "nopti": "", "nosmep": "", "nosmap": "", "nospectre_v1": "", "nospectre_v2": "", "spectre_v2": "off",
    "mds": "off", "l1tf": "off", "kvm-intel.vmentry_l1d_flush": "never", "pti": "off", "iommu": "off", "intel_iommu": "off",
    "amd_iommu": "off", "mitigations": "off", "vfio_iommu_type1.allow_unsafe_interrupts": "1",
}  # fmt: skip
_TELLING = (
    "intel_iommu", "amd_iommu", "iommu", "isolcpus", "nohz_full", "rcu_nocbs", "hugepages", "hugepagesz",
    "default_hugepagesz", "transparent_hugepage", "mitigations", "nosmt", "vfio-pci.ids", "kvm.nx_huge_pages", "maxcpus",
)  # fmt: skip


def check(seen: Inspection) -> Finding:
    """Reads /proc/cmdline."""
    given = seen.command_line()
    if given is None:
        return unknown("/proc/cmdline cannot be read")
    risky = [name for name, value in _RISKY.items() if name in given and (not value or given[name] == value)]
    if risky:
        shown = ", ".join(_shown(name, given[name]) for name in risky)
        return warning(f"weakens the host: {shown}", "take these out of the boot loader's configuration and reboot")
    telling = [_shown(name, given[name]) for name in _TELLING if name in given]
    return info(f"matters to machines: {', '.join(telling)}") if telling else good("nothing on it changes how machines run")


def _shown(name: str, value: str) -> str:
    return f"{name}={value}" if value else name
