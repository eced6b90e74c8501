"""The guest's clock: what it shows when the machine starts (source: qemu(1), ``-rtc``)."""

from __future__ import annotations

import re

from tinamou.blueprint import Contribution, Flag, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts import windows
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART", "ClockSpec"]

_CENTURY = 36525 * 86400
_FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


@dataclass(frozen=True)
class ClockSpec:
    """The clock that runs on when the machine is off, as the guest finds it."""

    shorthand = "base"

    base: str = option(
        "auto",
        "utc, localtime (as Windows has it), or a moment in UTC, 2026-01-31T12:00:00; auto: as the system in the guest "
        "expects it",
    )
    offset: int = option(
        0,
        "seconds it is ahead of the host's, or behind where below zero, at every start; a hundred years at most",
        minimum=-_CENTURY,
        maximum=_CENTURY,
    )

    def problems(self) -> list[Problem]:
        """A moment that is none; a moment and an offset."""
        if self.base not in ("auto", "utc", "localtime"):
            try:
                if not re.fullmatch(_FORM, self.base):
                    raise ValueError("not of the form 2026-01-31T12:00:00")
                from datetime import datetime

                datetime.fromisoformat(self.base)
            except ValueError as error:
                return [Problem("base", self.base, str(error), "utc, localtime, or a moment such as 2026-01-31T12:00:00")]
        if self.offset and self.base not in ("auto", "utc"):
            return [
                Problem("offset", self.offset, f"it is counted from UTC, and base is {self.base}", "leave one of them out")
            ]
        return []


def contribute(resolved: Resolved) -> Contribution:
    """``-rtc`` where it differs from QEMU's own way, which is UTC."""
    spec, guest = resolved.spec.clock, windows.release(resolved.spec)
    options: dict[str, Value] = {}
    asked_by, reasons = "spec clock.base", []
    if spec.offset:
        local = spec.base == "auto" and guest is not None
        ahead = spec.offset + (resolved.facts.local if local else 0)
        from datetime import UTC, datetime, timedelta

        moment = datetime.fromtimestamp(resolved.facts.now, UTC) + timedelta(seconds=ahead)
        options["base"] = moment.replace(tzinfo=None).isoformat()
        asked_by, reasons = "spec clock.offset", [f"{spec.offset} seconds from the host's clock"]
        if local:
            reasons.append("in local time, which Windows takes it for")
    elif spec.base not in ("auto", "utc"):
        options["base"] = spec.base
        reasons.append("what was asked for")
    elif spec.base == "auto" and guest:
        options["base"], reason = windows.clock_base(resolved.spec)
        asked_by, reasons = "spec os", [reason]
    if guest:
        options["driftfix"] = "slew"
        reasons.append("ticks that came too late are made up for, which Windows counts")
    return (
        Contribution(flags=(Flag("rtc", Why(asked_by, "; ".join(reasons)), options=options),)) if options else Contribution()
    )


PART = Part(contribute)
