"""Whether guests can run with memory the host cannot read, on AMD processors: SEV, SEV-ES, SEV-SNP."""

from __future__ import annotations

import re

from tinamou.doctor.finding import Finding, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "AMD SEV, SEV-ES, SEV-SNP"
_LEVELS = ("sev", "sev_es", "sev_snp")
_FAILED = re.compile(r"sev.*(fail|not supported|unsupported|disabled|error)", re.IGNORECASE)


def check(seen: Inspection) -> Finding:
    """Four layers must agree: the processor's flags (CPUID), kvm_amd's parameters, /dev/sev, and the kernel's log."""
    flags = seen.cpu_flags()
    if flags is None:
        return unknown("/proc/cpuinfo names no flags")
    able = [name for name in _LEVELS if name in flags]
    kernel = {name: seen.files.read(f"/sys/module/kvm_amd/parameters/{name}") for name in _LEVELS}
    active = [name for name, value in kernel.items() if value in ("Y", "1")]
    device = "/dev/sev" in seen.facts.devices
    log = [line.strip() for line in seen.kernel_log("sev-snp", "sev:", "sev supported", "sev enabled", "ccp ") or []]
    said = f"; kernel log: {' | '.join(log[-3:])}" if log else ""
    shown = f"processor: {_list(able)}; kvm_amd: {_list(active)}; /dev/sev {'present' if device else 'missing'}{said}"
    failed = [line for line in log if _FAILED.search(line)]
    if active and failed:
        return warning(
            f"switched on, but the kernel log speaks of a failure: {failed[-1]} ({shown})", "see dmesg; update the firmware"
        )
    if active and device:
        return good(shown)
    if not able:
        return info(f"not offered by this processor ({shown})")
    return info(
        shown, "switch SEV on in the firmware setup, boot with mem_encrypt=on kvm_amd.sev=1 (SNP: kvm_amd.sev_snp=1)"
    )


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
