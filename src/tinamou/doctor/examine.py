"""Runs the checks in the order a person would: processor, memory, devices, programs, room."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from tinamou.doctor.finding import Finding, unknown
from tinamou.doctor.inspection import Inspection

__all__ = ["CHECKS", "examine", "examine_one"]

CHECKS = (
    "virtualization",
    "kvm_device",
    "accelerator",
    "nested",
    "smt",
    "governor",
    "mitigations",
    "kernel_parameters",
    "isolated_cpus",
    "sev",
    "tdx",
    "memory",
    "huge_pages",
    "transparent_huge_pages",
    "ksm",
    "numa_balancing",
    "iommu",
    "iommu_groups",
    "vhost_net",
    "offloads",
    "qemu",
    "firmware",
    "secure_boot",
    "swtpm",
    "passt",
    "open_vswitch",
    "disk_space",
    "filesystem",
    "locked_memory",
    "open_files",
    "queued_requests",
    "real_time",
    "control_groups",
    "walls",
)
"""The names of the checks; each is a module of ``doctor.checks``."""


def examine(seen: Inspection, names: Iterable[str] = CHECKS) -> list[Finding]:
    """One finding per check. A check that stumbles over an unreadable file is unknown, it does not end the others."""
    return [examine_one(name, seen) for name in names]


def examine_one(name: str, seen: Inspection) -> Finding:
    """Runs one check."""
    module = import_module(f"tinamou.doctor.checks.{name}")
    try:
        finding: Finding = module.check(seen)
    except OSError as error:
        finding = unknown(str(error))
    return finding.named(name, module.TITLE)
