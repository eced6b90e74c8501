"""Whether the kernel can move network packets of guests without QEMU."""

from __future__ import annotations

from tinamou.doctor.finding import Finding, Remedy, good, info, unknown
from tinamou.doctor.inspection import Inspection

TITLE = "vhost-net"


def check(seen: Inspection) -> Finding:
    """The device node is there as soon as the module is loaded, or can be loaded by opening it."""
    if "/dev/vhost-net" in seen.facts.devices:
        return good("/dev/vhost-net is present")
    if not seen.files.exists("/sys/module"):
        return unknown("/sys/module is missing")
    if "nomodule" in (seen.command_line() or {}) or not seen.files.exists("/proc/modules"):
        return info("/dev/vhost-net is missing, and this kernel loads no modules", "use a kernel that has vhost_net")
    text = "modprobe vhost_net; without it tap interfaces work, about half as fast (user networking is not affected)"
    return info("/dev/vhost-net is missing", text, Remedy(argv=("modprobe", "vhost_net")))
