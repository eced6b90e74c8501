"""Whether firmware with Secure Boot and enrolled keys is installed."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Secure Boot firmware"


def check(seen: Inspection) -> Finding:
    """Looks for a descriptor with the features secure-boot and enrolled-keys that serves this host's architecture."""
    scan = seen.firmware()
    if scan is None:
        return unknown("the firmware descriptors were not read")
    own = [f for f in scan.firmware if any(arch == seen.facts.arch for arch, _ in f.targets)]
    enrolled = [f for f in own if {"secure-boot", "enrolled-keys"} <= f.features]
    if enrolled:
        return good(f"{enrolled[0].executable} with {enrolled[0].template}")
    able = [f for f in own if "secure-boot" in f.features]
    if able:
        return info(
            f"{able[0].executable} can do it, but no variable store with enrolled keys is installed", "enrol keys yourself"
        )
    return info("none for this architecture", "apt install ovmf")
