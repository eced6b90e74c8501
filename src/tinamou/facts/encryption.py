"""What the host's processor and kernel offer for guests whose memory the host cannot read."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field

__all__ = ["DEVICE", "EncryptionFacts"]

DEVICE = "/dev/sev"
"""Through which QEMU asks the secure processor about itself."""


@dataclass(frozen=True)
class EncryptionFacts:
    """SEV, SEV-ES, SEV-SNP and TDX, named ``sev``, ``sev-es``, ``sev-snp``, ``tdx``; empty where nobody asked.

    ``flags`` are those the kernel shows for the processor, None where it shows none. ``processor`` are those CPUID names,
    None where it was not asked: what is there and not in ``flags`` is switched off in the firmware setup. ``parameters``
    maps each to the parameter of its KVM module, missing where the module is not loaded or does not know it. ``cbit`` is the
    bit of a page table entry that says encrypted. Of ``keys`` the first ``keys_es`` are for SEV-ES and SEV-SNP, the others
    for SEV. ``opens`` tells whether this process may open /dev/sev, None where there is none, ``lockable`` how many bytes a
    QEMU started here may lock, None for as many as it is given. ``hashing`` are firmware files with room for the hashes of a
    kernel that QEMU loads.
    """

    flags: frozenset[str] | None = None
    processor: frozenset[str] | None = None
    parameters: Mapping[str, bool] = field(default_factory=dict)
    cbit: int | None = None
    keys: int = 0
    keys_es: int = 0
    opens: bool | None = None
    lockable: int | None = None
    hashing: frozenset[str] = frozenset()
