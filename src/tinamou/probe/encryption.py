"""Asks processor and kernel about encrypted guest memory: for machines that want it, and for the doctor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from tinamou.facts import EncryptionFacts, Firmware
from tinamou.facts.encryption import DEVICE
from tinamou.system.cpuid import Registers, cpuid
from tinamou.system.memlock import lockable
from tinamou.system.rooted import Rooted

__all__ = ["probe_encryption", "takes_hashes"]

_MEMORY_ENCRYPTION = 0x8000001F
_BITS = {"sev": 1, "sev-es": 3, "sev-snp": 4}
"""Bits of EAX of that leaf (source: AMD64 Architecture Programmer's Manual volume 3, E.4.17)."""

_FLAGS = {"sev": "sev", "sev_es": "sev-es", "sev_snp": "sev-snp", "tdx_host_platform": "tdx"}
"""Flags in /proc/cpuinfo (source: arch/x86/include/asm/cpufeatures.h)."""

_PARAMETERS = {
    "sev": "kvm_amd/parameters/sev",
    "sev-es": "kvm_amd/parameters/sev_es",
    "sev-snp": "kvm_amd/parameters/sev_snp",
    "tdx": "kvm_intel/parameters/tdx",
}

_TABLE = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_TABLE_END = 32
"""How far from its end a firmware's table of descriptions ends (source: QEMU hw/i386/pc_sysfw_ovmf.c)."""

_TAIL = 4096


def probe_encryption(
    files: Rooted, firmware: Iterable[Firmware] = (), ask: Callable[[int], Registers | None] = cpuid
) -> EncryptionFacts:
    """The facts of a host; ``ask`` is not asked about a recorded one. Only firmware for SEV is looked into."""
    said = ask(_MEMORY_ENCRYPTION) if files.real else None
    eax, ebx, ecx, edx = said or (0, 0, 0, 0)
    answered = said is not None or (files.real and ask(0) is not None)
    processor = frozenset(name for name, bit in _BITS.items() if eax >> bit & 1) if answered else None
    executables = [one.executable for one in firmware if any(word.startswith("amd-sev") for word in one.features)]
    return EncryptionFacts(
        flags=_flags(files),
        processor=processor,
        parameters=_parameters(files),
        cbit=ebx & 0x3F if processor else None,
        keys=ecx,
        keys_es=max(edx - 1, 0),
        opens=_may_open(files.path(DEVICE)),
        lockable=lockable() if files.real else None,
        hashing=frozenset(path for path in executables if takes_hashes(path)),
    )


def _may_open(path: str) -> bool | None:
    return os.access(path, os.R_OK | os.W_OK) if os.path.exists(path) else None  # noqa: PTH110


def _flags(files: Rooted) -> frozenset[str] | None:
    for line in (files.read("/proc/cpuinfo", 1 << 16) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features", "isa"):
            return frozenset(known for flag, known in _FLAGS.items() if flag in value.split())
    return None


def _parameters(files: Rooted) -> dict[str, bool]:
    values = {name: files.read(f"/sys/module/{path}") for name, path in _PARAMETERS.items()}
    return {name: value in ("Y", "1") for name, value in values.items() if value is not None}


def takes_hashes(path: str) -> bool:
    """Whether a firmware has set memory aside for the hashes of kernel, initrd and command line, which it then compares.

    Its table of descriptions is read backwards, each entry its data, its length and its name (source: QEMU
    hw/i386/pc_sysfw_ovmf.c, target/i386/sev.c; edk2 OvmfPkg/ResetVector).
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(0, 2)
            file.seek(-min(_TAIL, file.tell()), 2)
            tail = file.read()
    except OSError:
        return False
    end = len(tail) - _TABLE_END
    if end < 18 or tail[end - 16 : end] != _TABLE:
        return False
    start = max(end - int.from_bytes(tail[end - 18 : end - 16], "little"), 0)
    end -= 18
    while end - 18 >= start:
        length = int.from_bytes(tail[end - 18 : end - 16], "little")
        if length < 18 or end - length < start:
            return False
        if tail[end - 16 : end] == _HASHES:
            return any(tail[end - length + 4 : end - 18])
        end -= length
    return False
