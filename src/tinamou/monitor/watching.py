"""The watch: looks at running machines again and again, and says what begins and what ends to be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinamou.doctor.finding import Finding, Severity
from tinamou.late import dataclass, field, replace
from tinamou.monitor.balance import Balance, Moved
from tinamou.monitor.balloon import need
from tinamou.monitor.ears import Ears
from tinamou.monitor.examine import examine_host, examine_machine, wrong
from tinamou.monitor.host import look_at_host
from tinamou.monitor.look import Patience, leave, look
from tinamou.monitor.observation import HostObservation, Observation
from tinamou.monitor.states import reason
from tinamou.state import machines
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

    async def look(self) -> Looked:
        """Look once."""
        for line in await in_thread(self._tidy):
            self._complain(line)
        records = {record.name: record for record in self._records()}
        if self._ears is not None:
            self._ears.follow(records.values())
        looks = await asyncio.gather(*(self._look(record) for record in records.values()))
        seen = {one.name: one for one in looks if one is not None}
        host = self._budgeted(await asyncio.to_thread(look_at_host, Rooted(), seen), seen)
        findings = {HOST: examine_host(host), **{name: examine_machine(one, host) for name, one in seen.items()}}
        if self._balance is None:
            return Looked(seen, host, findings)
        moved = await self._balance.apply(self._balance.decide(seen, host), records)
        return Looked(seen, host, findings, moved)

    async def run(self, interval: float, tell: Callable[[Looked, list[Change]], None]) -> int:
        """Look every ``interval`` seconds, sooner when QEMU tells something or balloons move; until it is cancelled."""
        self._ears = ears = Ears()
        try:
            while True:
                looked = await self.look()
                tell(looked, self.changes(looked))
                await _woken(ears.woken, min(interval, _SOON) if looked.moved else interval)
                await asyncio.sleep(_SETTLE)  # what belongs together arrives together
                ears.woken.clear()
        finally:
            await ears.close()
            await leave(self._records())

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

    def _records(self) -> list[Record]:
        """The machines to look at: those that run, those whose QEMU was ended, and whoever was named."""
        every = machines.machines()
        return [one for one in every if (one.name in self._names if self._names else one.running or one.ended)]

    async def _look(self, record: Record) -> Observation | None:
        """What is seen of one machine; None of one that is removed meanwhile."""
        failed = self._ears.failed(record.name) if self._ears is not None else ()
        try:
            return await look(record, self._patience_with(record.name), errors=failed, share=self._share)
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


async def _woken(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
