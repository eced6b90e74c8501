"""Whether guests may run guests of their own."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "Nested virtualization"


def check(seen: Inspection) -> Finding:
    """Reads the ``nested`` parameter of the KVM module of this processor."""
    for module in ("kvm_intel", "kvm_amd", "kvm", "kvm_hv"):
        value = seen.files.read(f"/sys/module/{module}/parameters/nested")
        if value is None:
            continue
        if value in ("1", "Y", "y"):
            return good(f"{module}.nested = {value}")
        text = f"stop all machines, then: modprobe -r {module} && modprobe {module} nested=1"
        return info(f"{module}.nested = {value}: guests cannot run KVM themselves", text)
    return unknown("no KVM module with a nested parameter is loaded")
