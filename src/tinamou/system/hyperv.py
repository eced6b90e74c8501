"""Asks KVM which of Hyper-V's interfaces it has: the leaves of CPUID it would show to a guest."""

from __future__ import annotations

import fcntl
import os
import struct

from tinamou.system.closing import Closing

__all__ = ["hyperv_leaves"]

_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CAP_SYS_HYPERV_CPUID = 191
_KVM_GET_SUPPORTED_HV_CPUID = 0xC008AEC1
_ENTRIES = 64
_HEAD, _ENTRY = struct.Struct("<II"), struct.Struct("<10I")


def hyperv_leaves(device: str = "/dev/kvm") -> dict[int, tuple[int, int, int, int]] | None:
    """EAX, EBX, ECX, EDX by leaf; None where the device is not to be had, or its kernel does not say (before 5.11).

    Source: Linux Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_HV_CPUID.
    """
    try:
        with Closing(os.open(device, os.O_RDWR | os.O_CLOEXEC)) as descriptor:
            if fcntl.ioctl(descriptor, _KVM_CHECK_EXTENSION, _KVM_CAP_SYS_HYPERV_CPUID) <= 0:
                return None
            told = bytearray(_HEAD.pack(_ENTRIES, 0) + bytes(_ENTRIES * _ENTRY.size))
            fcntl.ioctl(descriptor, _KVM_GET_SUPPORTED_HV_CPUID, told)
    except OSError:
        return None
    entries = (
        _ENTRY.unpack_from(told, _HEAD.size + n * _ENTRY.size) for n in range(min(_HEAD.unpack_from(told)[0], _ENTRIES))
    )
    return {leaf: (eax, ebx, ecx, edx) for leaf, _, _, eax, ebx, ecx, edx, *_ in entries}
