"""Whether guests can have a TPM."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "TPM emulator (swtpm)"


def check(seen: Inspection) -> Finding:
    """Windows 11 and measured boot need it."""
    path = seen.facts.tools.get("swtpm")
    if path is None:
        return info("swtpm is not installed", "apt install swtpm swtpm-tools")
    version = seen.command([path, "--version"])
    if version is None:
        return unknown(f"{path} does not say its version")
    return good(f"{path}: {version.strip().splitlines()[0].partition(',')[0] if version.strip() else 'no version'}")
