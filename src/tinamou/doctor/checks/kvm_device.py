"""Whether this user may use /dev/kvm."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, bad, good, unknown, warning
from tinamou.doctor.inspection import Inspection
from tinamou.facts.host import EVERYBODY

TITLE = "/dev/kvm"


def check(seen: Inspection) -> Finding:
    """Opens the device; that says nothing yet about whether guests run, which the accelerator trial does."""
    if "/dev/kvm" not in seen.facts.devices:
        vendor = "kvm_amd" if "svm" in (seen.cpu_flags() or ()) else "kvm_intel"
        remedy = Remedy(argv=("modprobe", vendor))
        return bad("/dev/kvm is missing", "load the module of your processor: modprobe kvm_intel, or kvm_amd", remedy)
    may = seen.openable("/dev/kvm")
    if may is None:
        return unknown("/dev/kvm is there, but opening it was not tried")
    if may and seen.facts.is_root and seen.facts.device_groups.get("/dev/kvm", EVERYBODY) is None:
        return warning(
            "/dev/kvm opens, but only root may open it, and QEMU never runs as root",
            "give it to a group, as the rules of udev do: chgrp kvm /dev/kvm; chmod 660 /dev/kvm",
        )
    if may:
        return good("/dev/kvm opens for reading and writing")
    group = "kvm" if "kvm" in seen.facts.groups else "its group"
    return bad("/dev/kvm may not be opened by this user", f"join {group}: usermod -aG kvm $USER, then log in again")
