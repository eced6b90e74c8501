"""What the host's processor and KVM offer to guests that know Hyper-V."""

from __future__ import annotations

from tinamou.late import dataclass

__all__ = ["BITS", "HyperVFacts"]

BITS: dict[str, tuple[int, int, int]] = {
    "runtime": (0x40000003, 0, 1 << 0),
    "time": (0x40000003, 0, 1 << 1 | 1 << 9),
    "synic": (0x40000003, 0, 1 << 2),
    "stimer": (0x40000003, 0, 1 << 3),
    "vapic": (0x40000003, 0, 1 << 4),
    "vpindex": (0x40000003, 0, 1 << 6),
    "reset": (0x40000003, 0, 1 << 7),
    "frequencies": (0x40000003, 0, 1 << 11),
    "reenlightenment": (0x40000003, 0, 1 << 13),
    "xmm-input": (0x40000003, 3, 1 << 4),
    "crash": (0x40000003, 3, 1 << 10),
    "tlbflush-ext": (0x40000003, 3, 1 << 14),
    "stimer-direct": (0x40000003, 3, 1 << 19),
    "tlbflush": (0x40000004, 0, 1 << 2 | 1 << 11),
    "relaxed": (0x40000004, 0, 1 << 5),
    "ipi": (0x40000004, 0, 1 << 10 | 1 << 11),
    "evmcs": (0x40000004, 0, 1 << 14),
    "tlbflush-direct": (0x4000000A, 0, 1 << 17),
    "emsr-bitmap": (0x4000000A, 0, 1 << 19),
}
"""Enlightenment → leaf, register (0 EAX to 3 EDX) and bits that KVM shows for it.

Source: QEMU target/i386/kvm/kvm.c (kvm_hyperv_properties), hyperv-proto.h.
"""


@dataclass(frozen=True)
class HyperVFacts:
    """``vendor`` is the processor's (``GenuineIntel``, ``AuthenticAMD``), empty where nobody asked or it says none.

    ``nested``: guests may have guests; ``apic``: the processor delivers guests' interrupts by itself (AVIC, APICv).
    ``offered`` are the enlightenments KVM names, out of those in ``asked``; None where this kernel cannot be asked.
    """

    vendor: str = ""
    nested: bool = False
    apic: bool = False
    offered: frozenset[str] | None = None
    asked: frozenset[str] = frozenset(BITS)
