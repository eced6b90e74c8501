"""Replicas of a machine's disks on another host, made again and again: its plan is the same, a timer beside it does it."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Note, Why
from tinamou.errors import PlanError, Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART", "ReplicateSpec"]

_EVERY = r"(?:1|2|3|4|5|6|10|12|15|20|30)m(?:in)?|(?:1|2|3|4|6|8|12)h|hourly|daily|weekly|monthly"


@dataclass(frozen=True)
class ReplicateSpec:
    """Where to, and how often."""

    to: str = option(
        "",
        "the host that keeps them, of tinamou host ls",
        pattern=r"\w[\w.-]{0,250}",
        hint="one of tinamou host ls",
    )
    every: str = option("", "how often what was written since goes over: 5m, 30m, 6h, hourly", pattern=_EVERY, hint="5m, 6h")

    def problems(self) -> list[Problem]:
        """One without the other."""
        if bool(self.to) == bool(self.every):
            return []
        lacking = "every" if self.to else "to"
        return [Problem(lacking, None, "is missing beside the other one of to and every", 'to = "HOST", every = "5m"')]


def contribute(resolved: Resolved) -> Contribution:
    """Nothing of QEMU's, and a note. Raises PlanError for a machine that has nothing to replicate, or does not stay."""
    wanted = resolved.spec.replicate
    if not wanted.to:
        return Contribution()
    if resolved.facts.place.throwaway:
        reason, fix = "it is thrown away when it ends: it is not for a replica", "tinamou run -d makes one that stays"
        raise PlanError("it cannot be replicated", problems=[Problem("replicate.to", wanted.to, reason, fix)])
    if not resolved.disks:
        problem = Problem("replicate.to", wanted.to, "it has no disk", "give it one: disk = [{size = ...}]")
        raise PlanError("it cannot be replicated", problems=[problem])
    why = Why(
        "spec replicate", "a timer of systemd's does it from its first start on; tinamou show says how old the last is"
    )
    return Contribution(notes=(Note("info", f"its disks are replicated to {wanted.to}: {wanted.every}", why),))


PART = Part(contribute)
