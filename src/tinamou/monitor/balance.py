"""Sets the balloons as the controller decides, never on numbers from before the last change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tinamou.errors import ControlError
from tinamou.late import dataclass
from tinamou.monitor import balloon
from tinamou.monitor.guest_memory import set_balloon
from tinamou.monitor.look import visit_to, within
from tinamou.monitor.observation import HostObservation, Observation
from tinamou.monitor.states import LOOK_SECONDS, reason
from tinamou.state.record import Record

__all__ = ["Balance", "Moved"]

_REPEAT_SECONDS = 60.0


@dataclass(frozen=True)
class Moved:
    """A decision, and why it could not be carried out; empty where it was."""

    decision: balloon.Decision
    failed: str = ""


@dataclass(frozen=True)
class _Told:
    """When a balloon was last told something or seen to move, and what its guest held at the last look."""

    at: float
    holds: int


class Balance:
    """The balloons of all machines that were looked at, within ``budget`` bytes where there is one."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._told: dict[str, _Told] = {}
        self._asked: dict[str, tuple[int, float]] = {}

    def guests(self, seen: Mapping[str, Observation]) -> list[balloon.Guest]:
        """The machines as the controller takes them; one that stands still has said nothing."""
        return [self._guest(one) for one in seen.values() if one.memory is not None]

    def decide(self, seen: Mapping[str, Observation], host: HostObservation) -> list[balloon.Decision]:
        """What each guest should hold."""
        known = balloon.Host(host.available, host.reserve, host.pressure or 0.0) if host.total else None
        decided = balloon.decide(self.guests(seen), known, self.budget)
        for one in decided:
            told = self._told.get(one.name, _Told(0.0, one.before))
            still = one.before == told.holds and not one.changes
            self._told[one.name] = _Told(told.at if still else time.monotonic(), one.before)
        return decided

    async def apply(self, decisions: list[balloon.Decision], records: Mapping[str, Record]) -> list[Moved]:
        """Tell the balloons that are to change; one that does not follow is told the same again only after a minute."""
        told = [one for one in decisions if one.changes and one.name in records and not self._asked_already(one)]
        for one in told:
            self._asked[one.name] = (one.target, time.monotonic())
        failed = await asyncio.gather(*(_tell(records[one.name], one) for one in told))
        return [Moved(one, why) for one, why in zip(told, failed, strict=True)]

    def _asked_already(self, one: balloon.Decision) -> bool:
        target, at = self._asked.get(one.name, (0, 0.0))
        return target == one.target and time.monotonic() - at < _REPEAT_SECONDS

    def _guest(self, one: Observation) -> balloon.Guest:
        assert one.memory is not None
        memory = one.memory
        age = memory.age if one.state == "running" else None
        settled = not self._moves(one.name, memory.holds, memory.age)
        return balloon.Guest(one.name, memory.size, memory.holds, one.floor, memory.available, age, settled)

    def _moves(self, name: str, holds: int, age: float | None) -> bool:
        """Whether what the guest told is from before its balloon came to rest."""
        told = self._told.get(name)
        if told is None or not told.at:
            return False
        return holds != told.holds or (age or 0.0) >= time.monotonic() - told.at


async def _tell(record: Record, decision: balloon.Decision) -> str:
    async def tell() -> None:
        async with await visit_to(record)() as session:
            await set_balloon(session, decision.target)

    try:
        await within(LOOK_SECONDS, tell())
    except ControlError as error:
        return reason(error)
    return ""
