"""Whether guests can run with memory the host cannot read, on AMD processors: SEV, SEV-ES, SEV-SNP."""

from __future__ import annotations

import re

from tinamou.doctor.finding import Finding, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.facts import EncryptionFacts
from tinamou.facts.encryption import DEVICE
from tinamou.parts.confidential import NAMES
from tinamou.probe.encryption import probe_encryption
from tinamou.tuning.confidential import why_not

TITLE = "AMD SEV, SEV-ES, SEV-SNP"
_KINDS = ("sev", "sev-es", "sev-snp")
_FAILED = re.compile(r"sev.*(fail|not supported|unsupported|disabled|error)", re.IGNORECASE)


def check(seen: Inspection) -> Finding:
    """Layers that must agree: CPUID, the kernel's flags, kvm_amd's parameters, keys, /dev/sev, and the kernel's log."""
    known = probe_encryption(seen.files)
    if known.flags is None:
        return unknown("/proc/cpuinfo names no flags")
    active = [kind for kind in _KINDS if known.parameters.get(kind)]
    device = DEVICE in seen.facts.devices
    log = [line.strip() for line in seen.kernel_log("sev-snp", "sev:", "sev supported", "sev enabled", "ccp ") or []]
    shown = _shown(known, active, device, log)
    failed = [line for line in log if _FAILED.search(line)]
    if active and failed:
        return warning(
            f"switched on, but the kernel log speaks of a failure: {failed[-1]} ({shown})", "see dmesg; update the firmware"
        )
    if not known.flags & set(_KINDS) and not known.processor:
        return info(f"not offered by this processor ({shown})")
    missing = {kind: found for kind in _KINDS if (found := why_not(kind, known))}
    lacks = "; ".join(f"no {NAMES[kind]}: {reason}" for kind, (reason, _) in missing.items())
    shown = f"{shown}; {lacks}" if lacks else shown
    if len(missing) < len(_KINDS) and device:
        return good(shown)
    return info(shown, next(iter(missing.values()))[1] if missing else "load the module ccp, and see dmesg | grep ccp")


def _shown(known: EncryptionFacts, active: list[str], device: bool, log: list[str]) -> str:
    able = [kind for kind in _KINDS if kind in (known.flags or ())]
    keys = f", {known.keys} keys of which {known.keys_es} are for SEV-ES and SEV-SNP" if known.keys else ""
    said = f"; kernel log: {' | '.join(log[-3:])}" if log else ""
    there = "present" if device else "missing"
    return f"processor: {_list(able)}{keys}; kvm_amd: {_list(active)}; {DEVICE} {there}{said}"


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
