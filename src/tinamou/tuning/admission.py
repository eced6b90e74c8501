"""Decides whether the host has the memory for one more machine, and shows the arithmetic when it has not."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.blueprint import Note, Why
from tinamou.errors import PlanError
from tinamou.facts.host import HostFacts
from tinamou.late import dataclass, field
from tinamou.units import Size

__all__ = ["MemoryBill", "admit"]

_BASE = Size(96 << 20)
_PER_VCPU = Size(4 << 20)
_KEPT_FREE = 32


@dataclass(frozen=True)
class MemoryBill:
    """What one machine will need at most: guest RAM on ordinary pages, RAM on huge pages still to be reserved, QEMU itself.

    ``claims`` are what other running machines were promised and have not touched yet.
    """

    ram: Size
    to_reserve: Size = Size(0)
    overhead: Size = Size(0)
    claims: Mapping[str, Size] = field(default_factory=dict)

    @staticmethod
    def qemu_overhead(vcpus: int, translation: int = 0) -> Size:
        """What QEMU takes besides guest RAM: itself, a stack per vCPU, and its translation buffer under TCG."""
        return Size(_BASE + vcpus * _PER_VCPU + translation)

    @property
    def own(self) -> Size:
        """What this machine needs."""
        return Size(self.ram + self.to_reserve + self.overhead)

    @property
    def others(self) -> Size:
        """What the others may still claim."""
        return Size(sum(self.claims.values()))


def admit(host: HostFacts, bill: MemoryBill, *, overcommit: bool = False) -> tuple[Note, ...]:
    """Nothing to say when it fits. Raises PlanError when it does not, unless ``overcommit`` turns that into a warning."""
    kept = Size(host.memory // _KEPT_FREE)
    room = max(host.memory_available - kept, 0)
    missing = bill.own + bill.others - room
    if missing <= 0 or not host.memory:
        return ()
    arithmetic = _arithmetic(host, bill, kept, missing)
    if overcommit:
        why = Why("spec memory.overcommit", arithmetic)
        return (Note("warning", "the host may run out of memory", why),)
    raise PlanError(
        "the host has not enough memory for this machine",
        why=arithmetic,
        fix="ask for less memory, stop a machine, or set memory.overcommit = true to start it all the same",
    )


def _arithmetic(host: HostFacts, bill: MemoryBill, kept: Size, missing: int) -> str:
    terms = [f"guest RAM {bill.ram.mib}" if bill.ram else "", f"QEMU {bill.overhead.mib}" if bill.overhead else ""]
    if bill.to_reserve:
        terms.append(f"huge pages to reserve {bill.to_reserve.mib}")
    terms += [f"{name} may still claim {size.mib}" for name, size in sorted(bill.claims.items()) if size]
    limit = f", limit of the control group {host.memory_limit.mib}" if host.memory_limit is not None else ""
    total = Size(bill.own + bill.others).mib
    return (
        f"{' + '.join(filter(None, terms))} = {total} MiB, but {host.memory_available.mib} available − {kept.mib} kept for "
        f"the host = {max(host.memory_available - kept, 0) >> 20} MiB{limit}: {-(-missing >> 20)} MiB are missing"
    )
