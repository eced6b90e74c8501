"""Where among several hosts a machine belongs: what `tinamou place` and a cluster go by. Its plan is the same on each."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Note, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART", "PlacementSpec"]

_GROUP = r"[a-z0-9][a-z0-9._-]{0,62}"
_IDS = r"(?i:[0-9a-f]{4}:[0-9a-f]{4})"


@dataclass(frozen=True)
class PlacementSpec:
    """Rules for choosing a host; a group is a name that machines share."""

    spread: str = option(
        "", "a group of machines of which no host has two", pattern=_GROUP, hint="a name such as database-replicas"
    )
    together: str = option("", "a group of machines that are all on one host", pattern=_GROUP, hint="a name such as shop")
    near: str = option(
        "",
        "on a memory node that has a device of this kind (VENDOR:DEVICE), without taking the device",
        pattern=_IDS,
        hint="for example 15b3:1017; tinamou pci ls lists those of a host",
    )

    @property
    def any(self) -> bool:
        """Whether there is a rule."""
        return bool(self.spread or self.together or self.near)

    def problems(self) -> list[Problem]:
        """A group whose members are to be together and apart."""
        if self.spread and self.spread == self.together:
            reason = "the machines of one group cannot be on one host and on different ones"
            return [Problem("spread", self.spread, reason, "leave one of spread and together out")]
        return []


def contribute(resolved: Resolved) -> Contribution:
    """Nothing of the machine, and a note: who starts it by hand has chosen the host."""
    if not resolved.spec.placement.any:
        return Contribution()
    why = Why("spec placement", "tinamou place, and a cluster, choose the host by it; this start has one")
    return Contribution(notes=(Note("info", "the rules of [placement] were not asked on which host to start it", why),))


PART = Part(contribute)
