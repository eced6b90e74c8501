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

    floor: Size | None = option(
        None, "the least tinamou watch may leave the guest; without it none of its memory is taken back", minimum=16 << 20
    )

    def problems(self) -> list[Problem]:
        """What does not go together page by page."""
        return [*self._forkable_problems(), *self._floor_problems()]

    def _forkable_problems(self) -> list[Problem]:
        """Huge pages cannot be shared page by page between forks."""
        if self.forkable and self.hugepages != "off":
            reason = "a fork shares memory page by page, and huge pages cannot be mapped so"
            return [Problem("hugepages", self.hugepages, reason, "set hugepages = off, or forkable = false")]
        return []

    def _floor_problems(self) -> list[Problem]:
        """The balloon takes small pages that belong to one machine alone."""
        found = []
        if self.floor is None:
            return []
        if self.floor > self.size:
            reason = f"the machine has only {self.size}"
            found.append(Problem("floor", str(self.floor), reason, "set it to the memory's size or less"))
        if self.forkable:
            reason = "pages a balloon takes would be missing in the forks of a forkable machine"
            found.append(Problem("floor", str(self.floor), reason, "leave it out, or set forkable = false"))
        if self.hugepages != "off":
            reason = "a balloon takes single small pages, which frees nothing of a huge one"
            found.append(Problem("floor", str(self.floor), reason, "leave it out, or set hugepages = off"))
        return found
