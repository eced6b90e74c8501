"""Asks processor and KVM about Hyper-V's interfaces: for machines whose guest is Windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tinamou.facts.hyperv import BITS, HyperVFacts
from tinamou.system.hyperv import hyperv_leaves
from tinamou.system.rooted import Rooted

__all__ = ["offered", "probe_hyperv"]

Leaves = Mapping[int, tuple[int, int, int, int]]


def probe_hyperv(host: Rooted, ask: Callable[[], Leaves | None] = hyperv_leaves) -> HyperVFacts:
    """The facts of a host; KVM is not asked about a recorded one."""
    rows = (line.partition(":") for line in (host.read("/proc/cpuinfo", 1 << 16) or "").splitlines())
    vendor = next((value.strip() for name, _, value in rows if name.strip() == "vendor_id"), "")
    module = {"GenuineIntel": "kvm_intel", "AuthenticAMD": "kvm_amd"}.get(vendor, "")
    on = {
        name: host.read(f"/sys/module/{module}/parameters/{name}") in ("Y", "1")
        for name in ("nested", "avic", "enable_apicv")
    }
    leaves = ask() if host.real else None
    apic = on["avic"] or on["enable_apicv"]
    return HyperVFacts(vendor, on["nested"], apic, None if leaves is None else offered(leaves))


def offered(leaves: Leaves) -> frozenset[str]:
    """The enlightenments whose bits are all there."""
    nothing = (0, 0, 0, 0)
    return frozenset(name for name, (leaf, at, bits) in BITS.items() if leaves.get(leaf, nothing)[at] & bits == bits)
