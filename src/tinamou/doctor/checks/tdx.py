"""Whether guests can run with memory the host cannot read, on Intel processors: TDX."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Intel TDX"


def check(seen: Inspection) -> Finding:
    """The processor's flag, the kvm_intel module's parameter, and the kernel's word that the TDX module was initialised."""
    flags = seen.cpu_flags()
    if flags is None:
        return unknown("/proc/cpuinfo names no flags")
    parameter = seen.files.read("/sys/module/kvm_intel/parameters/tdx")
    log = seen.kernel_log("virt/tdx")
    able = "tdx_host_platform" in flags or bool(log and any("private KeyID range" in line for line in log))
    said = f"; kernel log: {log[-1].strip()}" if log else ""
    shown = f"processor: {'yes' if able else 'no'}; kvm_intel.tdx = {parameter or 'missing'}{said}"
    if parameter in ("Y", "1"):
        return good(shown)
    if not able:
        return info(f"not offered by this processor ({shown})")
    return info(shown, "switch TDX on in the firmware setup, boot a kernel with KVM_INTEL_TDX and kvm_intel.tdx=1")
