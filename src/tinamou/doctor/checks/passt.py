"""Whether guests can have fast user networking."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "User networking (passt)"


def check(seen: Inspection) -> Finding:
    """passt gives IPv6, ICMP and several times the speed of QEMU's own user network."""
    path = seen.facts.tools.get("passt")
    if path is None:
        return info(
            "passt is not installed", "apt install passt; without it machines use QEMU's slower built-in user network"
        )
    version = seen.command([path, "--version"])
    if version is None:
        return unknown(f"{path} does not say its version")
    if "unknown version" in version:
        return info(
            f"{path} does not know its version",
            "builds of early 2023 (Debian 12) lose connections forwarded before the guest's network is up: tinamou uses "
            "QEMU's own stack where ports lead in",
        )
    return good(f"{path}: {version.strip().splitlines()[0] if version.strip() else 'no version'}")
