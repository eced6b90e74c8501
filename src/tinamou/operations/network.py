"""Networks of machines: diagnosed and put right, compared, captured; cards added, described anew, removed, limited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.errors import TinamouError
from tinamou.guest.ready import SETTLED
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import cards, life
from tinamou.machine.connected import Connected
from tinamou.network import attend
from tinamou.network.attend import Report
from tinamou.network.diagnose import DEAD
from tinamou.network.remedies import Describe
from tinamou.network.speed import Speed
from tinamou.operations.machines import restart
from tinamou.parts.net import NetSpec
from tinamou.state import machines
from tinamou.system.exec import CommandError

__all__ = ["Added", "Diagnosed", "Measured", "add", "capture", "change", "compare", "diagnose", "link", "rate", "remove"]

HINDERS = 30
"""From this weight on a finding costs what a user notices."""
SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Measured:
    """A card's speed ``now``, or ``before`` and ``after`` something was put right."""

    nic: str
    when: str
    speed: Speed


@dataclass(frozen=True)
class Diagnosed:
    """What is wrong with a machine's network at the end, the speeds that were measured, and what was put right."""

    report: Report
    speeds: tuple[Measured, ...] = ()
    done: tuple[str, ...] = ()

    @property
    def hindered(self) -> bool:
        """Whether something is left that a user notices."""
        return any(finding.weight >= HINDERS for finding in self.report.findings)


@dataclass(frozen=True)
class Added:
    """A card that was added: its name, whether it is plugged in already, and what must be said about it."""

    nic: str
    plugged: bool
    notes: tuple[str, ...] = ()


async def diagnose(
    name: str, *, fix: bool = False, restarting: bool = False, measure: bool = True, progress: Progress = silent
) -> Diagnosed:
    """Find out what slows a machine's network down or stops it; with ``fix`` do about it what can be done without risk.

    With ``restarting`` also what takes a new start, and start the machine again. Raises StateError, ControlError.
    """
    first = await _examined(name, fix=fix, measure=measure, progress=progress)
    wanted = [(one.nic.removesuffix("-dev"), one.remedy) for one in first.report.findings]
    anew = [(nic, remedy.fields) for nic, remedy in wanted if isinstance(remedy, Describe) and remedy.fields]
    if not (fix and restarting and anew):
        return first
    done = list(first.done)
    for nic, fields in anew:
        await cards.change(name, nic, fields)
        done.append(f"{nic}: {', '.join(f'{key} = {value}' for key, value in fields.items())}")
    await restart(name, progress=progress)
    await asyncio.sleep(SETTLE_SECONDS)
    again = await _examined(name, fix=False, measure=measure, progress=progress)
    after = [Measured(one.nic, "after", one.speed) for one in again.speeds]
    return Diagnosed(again.report, (*first.speeds, *after), tuple(done))


async def _examined(name: str, *, fix: bool, measure: bool, progress: Progress) -> Diagnosed:
    record = life.running(name)
    async with Connected.visiting(record) as machine:
        session, agent = await machine.session(), machine.agent
        with contextlib.suppress(TinamouError):
            await agent.run(["sh", "-c", SETTLED], timeout=15, bare=True)
        report = await attend.examine(record, session, agent)
        speeds = await _speeds(machine, report, "before" if fix else "now", progress) if measure else []
        done = []
        for finding in report.findings if fix else ():
            try:
                if await attend.put_right(record, session, agent, finding):
                    done.append(finding.cause)
            except (TinamouError, CommandError, OSError) as error:
                progress(f"not put right: {finding.cause}: {error}", None)
        if done:
            report = await attend.examine(record, session, agent)
            speeds += await _speeds(machine, report, "after", progress) if measure else []
    return Diagnosed(report, tuple(speeds), tuple(done))


async def _speeds(machine: Connected, report: Report, when: str, progress: Progress) -> list[Measured]:
    found = []
    dead = {finding.nic for finding in report.findings if finding.weight > DEAD}
    for nic in (one for one in report.nics if one.id not in dead):
        try:
            if speed := await attend.speed_of(nic, machine.agent):
                found.append(Measured(nic.id, when, speed))
        except (TinamouError, OSError, TimeoutError) as error:
            progress(f"{nic.id} was not measured: {str(error) or type(error).__name__}", None)
    return found


async def compare(nets: Sequence[object], *, cpus: int = 1, progress: Progress = silent) -> list[Speed]:
    """The speeds of networks, each in a throw-away guest of its own. Raises GuestError where one cannot be measured."""
    from tinamou.machine.net_trial import trial

    found = []
    for number, net in enumerate(nets):
        progress(f"measuring network {number + 1} of {len(nets)}", number / len(nets))
        found.append(await trial(net, cpus=cpus))
    return found


async def capture(name: str, nic: str, target: Path, *, stopped: asyncio.Event, seconds: float) -> int:
    """Write a card's packets to ``target`` as pcap for some seconds or until ``stopped``; the bytes written.

    Raises StateError, ControlError, OSError.
    """
    record = life.running(name)
    number = cards.number_of(record, nic)
    async with Connected.visiting(record) as machine:
        return await attend.capture(record, await machine.session(), number, target, stopped, seconds)


async def add(name: str, request: object) -> Added:
    """Give a machine one more card, while it runs as well. Raises as `cards.add`."""
    number, notes = await cards.add(name, request)
    return Added(f"net{number}", machines.find(name).running, tuple(notes))


async def change(name: str, nic: str, fields: Mapping[str, object], *, restarting: bool = False) -> None:
    """Describe a card anew, from the next start on, which is now with ``restarting``. Raises SpecError, PlanError."""
    await cards.change(name, nic, fields)
    if restarting and machines.find(name).running:
        await restart(name)


async def remove(name: str, nic: str) -> None:
    """Take a card away; the others keep their numbers. Raises StateError, ControlError."""
    await cards.remove(name, nic)


async def link(name: str, nic: str, *, up: bool) -> None:
    """Plug a card's virtual cable in or out. Raises StateError, ControlError."""
    record = life.running(name)
    number = cards.number_of(record, nic)
    async with Connected.visiting(record) as machine:
        await attend.plug(await machine.session(), f"net{number}-dev", up=up)


async def rate(name: str, nic: str, rates: Mapping[str, str]) -> NetSpec:
    """The card after its limits were changed (``rate_in``, ``rate_out``); as it is where there are none to change."""
    return await cards.set_rates(name, nic, rates) if rates else cards.card_of(machines.find(name), nic)
