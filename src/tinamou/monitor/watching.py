"""The watch: looks at running machines again and again, and says what begins and what ends to be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinamou.control import Session
from tinamou.doctor.finding import Finding, Severity
from tinamou.late import dataclass, field, replace
from tinamou.monitor.again import Sight, grown, look_again, rooms
from tinamou.monitor.balance import Balance, Moved
from tinamou.monitor.balloon import need
from tinamou.monitor.ears import Ears
from tinamou.monitor.examine import examine_host, examine_machine, wrong
from tinamou.monitor.host import look_at_host
from tinamou.monitor.look import Patience, leave, look
from tinamou.monitor.observation import HostObservation, Observation, Place
from tinamou.monitor.pace import Pace
from tinamou.monitor.states import reason
from tinamou.state import machines
from tinamou.state.kept import Kept
from tinamou.state.record import Record, read
from tinamou.system.loop_thread import in_thread
from tinamou.system.rooted import Rooted
from tinamou.units import Size

__all__ = ["HOST", "Change", "Looked", "Watch"]

HOST = ""
"""In place of a machine's name: the finding is about the host."""

_AGAIN = ("guest_oom", "disk_stopped")
"""What these find are single happenings: each new one is told, though the last is still wrong."""

_SOON, _SETTLE, _BRIEF = 2.0, 0.2, 2.0
"""Seconds until the next look while balloons move, for events to arrive together, for a guest that was silent."""

_TIDY = 600.0
"""Seconds after which the state directory is brought up to date, also where no machine has begun or ended."""


@dataclass(frozen=True)
class Change:
    """A finding that ``begins`` or ``ends`` to be wrong, at a time in seconds since 1970."""

    at: float
    machine: str
    event: str
    finding: Finding


@dataclass(frozen=True)
class Looked:
    """One look at everything: findings by machine, those of the host under ``HOST``; what was decided for the balloons."""

    seen: Mapping[str, Observation] = field(default_factory=dict)
    host: HostObservation = field(default_factory=HostObservation)
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    moved: Sequence[Moved] = ()

    def wrong(self) -> list[tuple[str, Finding]]:
        """What somebody should be told."""
        return [(name, finding) for name, every in self.findings.items() for finding in every if wrong(finding)]


class Watch:
    """Looks at the machines of these names, all that run where none is named; sets their balloons where it may.

    ``tidy`` brings the state directory up to date before each look: what it says is ``complain``-ed of.
    ``share`` asks for the PSS of each QEMU too.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        balance: Balance | None = None,
        patience: Patience | None = None,
        tidy: Callable[[], list[str]] = list,
        complain: Callable[[str], None] = lambda line: None,
        share: bool = False,
    ) -> None:
        self._names, self._balance, self._patience = names, balance, patience or Patience()
        self._tidy, self._complain, self._share = tidy, complain, share
        self._known: dict[tuple[str, str], Finding] = {}
        self._ears: Ears | None = None
        self._kept, self._pace = Kept(), Pace()
        self._sights: dict[str, Sight] = {}
        self._before: tuple[list[tuple[Record, bool, bool]], frozenset[str]] = [], frozenset()
        self._tidied = -_TIDY
        self._short: bool | None = None

    async def look(self) -> Looked:
        """Look at all of them once, in full."""
        for line in await in_thread(self._tidy):
            self._complain(line)
        records = {record.name: record for record in self._chosen()}
        sights = await asyncio.gather(*(self._sight(record, {}) for record in records.values()))
        return await self._judged(records, {one.seen.name: one for one in sights if one is not None})

    async def run(self, interval: float, tell: Callable[[Looked, list[Change]], None]) -> int:
        """Look every ``interval`` seconds, sooner when QEMU tells something or balloons move; until it is cancelled.

        Of many machines only so many are looked at each time as `Pace` says, and those of which something was heard.
        """
        self._ears = ears = Ears()
        try:
            while True:
                looked = await self._look_again(ears)
                tell(looked, self.changes(looked))
                await _woken(ears.woken, min(interval, _SOON) if looked.moved else interval)
                await asyncio.sleep(_SETTLE)  # what belongs together arrives together
                ears.woken.clear()
        finally:
            await ears.close()
            await leave(self._chosen())

    async def _look_again(self, ears: Ears) -> Looked:
        said, every = await in_thread(self._up_to_date)
        for line in said:
            self._complain(line)
        records = {record.name: record for record in every}
        ears.follow(records.values())
        due = self._due(ears, records)
        places, began = await asyncio.to_thread(rooms, self._sights.values()), time.process_time()
        looks = await asyncio.gather(*(self._sight(records[name], places) for name in due))
        gone = {name for name, one in zip(due, looks, strict=True) if one is None} | self._sights.keys() - records.keys()
        fresh = {one.seen.name: one for one in looks if one is not None}
        sights = {name: one for name, one in (self._sights | fresh).items() if name not in gone}
        looked = await self._judged(records, sights)
        self._pace.took(due, time.monotonic(), time.process_time() - began)
        return looked

    def _due(self, ears: Ears, records: Mapping[str, Record]) -> list[str]:
        """Whose turn it is, and whoever has changed; balloons are set by the numbers of this moment alone."""
        if self._balance is not None:
            return list(records)

        def changed(name: str) -> bool:
            before = self._sights.get(name)
            return before is None or before.record is not records[name] or before.told != ears.told(name)

        turns = dict.fromkeys(self._pace.due(records, time.monotonic()))
        return [*turns, *(name for name in records if name not in turns and changed(name))]

    async def _judged(self, records: Mapping[str, Record], sights: Mapping[str, Sight]) -> Looked:
        """What is seen of machines and host, and found; balloons are set."""
        seen = {name: one.seen for name, one in sights.items()}
        host = self._budgeted(await asyncio.to_thread(look_at_host, Rooted(), seen), seen)
        before, same = self._sights, host.short is self._short
        self._short = host.short
        self._sights = {
            name: one if same and one is before.get(name) else replace(one, findings=examine_machine(one.seen, host))
            for name, one in sights.items()
        }
        findings = {HOST: examine_host(host), **{name: one.findings for name, one in self._sights.items()}}
        if self._balance is None:
            return Looked(seen, host, findings)
        moved = await self._balance.apply(self._balance.decide(seen, host), records)
        return Looked(seen, host, findings, moved)

    def changes(self, looked: Looked) -> list[Change]:
        """What began and ended to be wrong since the last time; what is unknown of a machine that runs is neither."""
        now, changes = time.time(), []
        for name, every in looked.findings.items():
            off = name in looked.seen and not looked.seen[name].running
            for finding in every:
                before, known = self._known.get(key := (name, finding.check)), finding.severity is not Severity.UNKNOWN
                if wrong(finding) and (before is None or _anew(before, finding)):
                    changes.append(Change(now, name, "begins", finding))
                elif before is not None and not wrong(finding) and (known or off):
                    changes.append(Change(now, name, "ends", finding))
                    del self._known[key]
                if wrong(finding):
                    self._known[key] = finding
        for key in [key for key in self._known if key[0] not in looked.findings]:
            gone = replace(self._known.pop(key), evidence="the machine does not run any more", fix="")
            changes.append(Change(now, key[0], "ends", gone))
        return changes

    def _up_to_date(self) -> tuple[list[str], list[Record]]:
        """What to complain of, and the machines to look at, as `_chosen`.

        The state directory is brought up to date where a machine has begun or ended, and now and then.
        """
        every, now, said = self._kept.look(), time.monotonic(), list[str]()
        standing = _standing(every)
        if now - self._tidied >= _TIDY or (standing, self._kept.odd) != self._before:
            said, every = self._tidy(), self._kept.look()
            standing, self._tidied = _standing(every), now
        self._before = standing, self._kept.odd
        running = {one.name for one, runs, _ in standing if runs}
        return said, [one for one in every if (one.name in self._names if self._names else one.ended or one.name in running)]

    def _chosen(self) -> list[Record]:
        """The machines to look at: those that run, those whose QEMU was ended, and whoever was named."""
        every = machines.machines()
        return [one for one in every if (one.name in self._names if self._names else one.ended or one.running)]

    async def _sight(self, record: Record, places: Mapping[str, Place | None]) -> Sight | None:
        """What is seen of one machine; None of one that is removed meanwhile."""
        name, ears, before = record.name, self._ears, self._sights.get(record.name)
        session, told = (ears.session(name), ears.told(name)) if ears is not None else (None, 0)
        if before is not None and self._balance is None:
            again = await look_again(before, record, session, told, places, self._patience.every)
            if again is not None:
                return again
        began, length = time.monotonic(), grown(record)
        seen = await self._look(record, session)
        return None if seen is None else Sight(record, seen, time.monotonic(), began, told, length)

    async def _look(self, record: Record, session: Session | None) -> Observation | None:
        failed = self._ears.failed(record.name) if self._ears is not None else ()
        patience = self._patience_with(record.name)
        try:
            return await look(record, patience, errors=failed, share=self._share, lent=session)
        except Exception as error:  # whatever one machine answers, the others are looked at
            if read(Path(record.directory)) is None:
                return None
            return Observation(record.name, silent=f"it cannot be looked at: {reason(error)}")

    def _patience_with(self, name: str) -> Patience:
        """Whose guest did not answer last time is not waited for as long: the others should not be looked at late."""
        silent = (name, "guest_silent") in self._known
        return replace(self._patience, first=_BRIEF, agent=_BRIEF) if silent else self._patience

    def _budgeted(self, host: HostObservation, seen: Mapping[str, Observation]) -> HostObservation:
        if self._balance is None or self._balance.budget is None:
            return host
        needed = {one.name: Size(need(one) if one.floor else one.holds) for one in self._balance.guests(seen)}
        return replace(host, budget=Size(self._balance.budget), needed=needed)


def _anew(before: Finding, now: Finding) -> bool:
    """Whether it is another thing than the one that was told, or a graver one."""
    graver = before.severity is Severity.WARNING and now.severity is Severity.BAD
    return graver or (now.check in _AGAIN and before.evidence != now.evidence)


def _standing(every: Sequence[Record]) -> list[tuple[Record, bool, bool]]:
    """Which machines run or are in somebody's hands: where that is as it was, nothing has begun or ended."""
    return [(one, one.running, one.owned) for one in every if one.pid or one.owner_pid]


async def _woken(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
