"""Whether the processor offers hardware virtualization to this kernel."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Hardware virtualization"
_NAMES = {"vmx": "Intel VT-x (vmx)", "svm": "AMD-V (svm)"}


def check(seen: Inspection) -> Finding:
    """Looks for vmx or svm among the processor's flags; other architectures announce nothing there."""
    flags = seen.cpu_flags()
    if flags is None:
        return unknown("/proc/cpuinfo names no flags")
    found = [text for flag, text in _NAMES.items() if flag in flags]
    if found:
        return good(f"{found[0]} in /proc/cpuinfo")
    if not {"lm", "fpu"} & flags:
        return unknown("this architecture does not announce it in /proc/cpuinfo; see the accelerator trial")
    if seen.files.exists("/sys/module/kvm_pvm"):
        return warning(
            "neither vmx nor svm in /proc/cpuinfo; KVM here is kvm_pvm, which works without them but runs few guests",
            "believe the accelerator trial; for full speed let the outer hypervisor pass virtualization on",
        )
    if "hypervisor" in flags:
        return warning(
            "neither vmx nor svm in /proc/cpuinfo, and this host is itself a guest",
            "let the outer hypervisor pass virtualization on (nested=1 and a CPU model with vmx or svm)",
        )
    return warning("neither vmx nor svm in /proc/cpuinfo", "switch on VT-x, AMD-V or SVM in the firmware setup")
