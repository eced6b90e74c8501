"""Whether guests can run with memory the host cannot read, on Intel processors: TDX."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection
from tinamou.probe.encryption import probe_encryption
from tinamou.tuning.confidential import why_not

TITLE = "Intel TDX"


def check(seen: Inspection) -> Finding:
    """The processor's flag, the kvm_intel module's parameter, and the kernel's word that the TDX module was initialised."""
    known = probe_encryption(seen.files)
    if known.flags is None:
        return unknown("/proc/cpuinfo names no flags")
    log = seen.kernel_log("virt/tdx")
    able = "tdx" in known.flags or bool(log and any("private KeyID range" in line for line in log))
    parameter = {True: "Y", False: "N"}.get(known.parameters["tdx"]) if "tdx" in known.parameters else "missing"
    said = f"; kernel log: {log[-1].strip()}" if log else ""
    shown = f"processor: {'yes' if able else 'no'}; kvm_intel.tdx = {parameter}{said}"
    missing = why_not("tdx", known)
    if missing is None or known.parameters.get("tdx"):
        return good(shown)
    return info(shown, missing[1]) if able else info(f"not offered by this processor ({shown})")
