"""The processor's own description of itself: the CPUID instruction, which any program may execute."""

from __future__ import annotations

import os

__all__ = ["Registers", "cpuid"]

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

_SPEAKS = ("x86_64",)
"""Whose instructions these are."""

_CODE = bytes.fromhex("53 89f8 89f1 4989d0 0fa2 418900 41895804 41894808 4189500c 5b c3")
"""push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid; the four registers to [r8]; pop rbx; ret."""


def cpuid(leaf: int, subleaf: int = 0) -> Registers | None:
    """What the processor says to ``leaf``; None where it has no such leaf, is no x86, or may not be asked.

    Executed rather than read from /dev/cpu/N/cpuid, which takes root and a kernel module, or asked of a QEMU, which takes
    KVM, /dev/sev and a process. QEMU does the same, and compares (target/i386/sev.c). Source: AMD64 Architecture
    Programmer's Manual volume 3, appendix E.
    """
    if os.uname().machine not in _SPEAKS:
        return None
    highest = _execute(leaf & 0x80000000, 0)
    return _execute(leaf, subleaf) if highest and leaf <= highest[0] else None


def _execute(leaf: int, subleaf: int) -> Registers | None:
    import ctypes
    import mmap

    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_CODE)
    start = (ctypes.c_char * 1).from_buffer(page)
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(start))
    found = (ctypes.c_uint32 * 4)()
    call(leaf, subleaf, ctypes.addressof(found))
    return found[0], found[1], found[2], found[3]
