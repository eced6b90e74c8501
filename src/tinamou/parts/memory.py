"""The guest's memory as the user asks for it; the RAM backend itself is decided in tuning/memory.py."""

from __future__ import annotations

from dataclasses import dataclass

from tinamou.fields import option
from tinamou.units import Size


@dataclass(frozen=True, slots=True)
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
