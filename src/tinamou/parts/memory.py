"""The guest's memory as the user asks for it; the RAM backend itself is decided in tuning/memory.py."""

from __future__ import annotations

from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.units import Size


@dataclass(frozen=True)
class MemorySpec:
    """How much memory the guest has and what it rests on."""

    shorthand = "size"

    size: Size = option(Size(512 << 20), "guest memory", minimum=16 << 20, hint="write for example 512M or 2G")
    hugepages: str = option(
        "off",
        "pages the memory lies on: off (ordinary, with transparent huge pages), auto, 2M, 1G",
        pattern=r"off|auto|\d+[KMG]",
        hint="off, auto, 2M or 1G",
    )
    merge: bool = option(
        False, "let the kernel merge equal pages with other machines (KSM): saves memory, leaks what they hold"
    )
    overcommit: bool = option(False, "start even when the host may run out of memory")
    forkable: bool = option(
        False, "memory other processes can map, so that instant checkpoints and forks of the running machine are possible"
    )

    def problems(self) -> list[Problem]:
        """Huge pages cannot be shared page by page between forks."""
        if self.forkable and self.hugepages != "off":
            reason = "a fork shares memory page by page, and huge pages cannot be mapped so"
            return [Problem("hugepages", self.hugepages, reason, "set hugepages = off, or forkable = false")]
        return []
