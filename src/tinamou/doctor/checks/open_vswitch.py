"""Whether Open vSwitch can connect guests."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, info, unknown, warning
from tinamou.doctor.inspection import Inspection

TITLE = "Open vSwitch"


def check(seen: Inspection) -> Finding:
    """The tool, the daemon behind it, and whether the kernel's datapath is loaded (else packets pass through userspace)."""
    path = seen.facts.tools.get("ovs-vsctl")
    if path is None:
        return info("not installed", "apt install openvswitch-switch, where machines shall hang on it")
    if not seen.files.exists("/sys/module"):
        return unknown("/sys/module is missing")
    answer = seen.command([path, "--timeout=1", "show"])
    if answer is None:
        return warning(f"{path} is there, its database does not answer", "systemctl start openvswitch-switch")
    if not seen.files.exists("/sys/module/openvswitch"):
        text = "modprobe openvswitch, or keep the slower datapath_type=netdev"
        return info(
            "runs without the kernel's datapath: packets pass through userspace",
            text,
            Remedy(argv=("modprobe", "openvswitch")),
        )
    return good("runs, with the kernel's datapath")
