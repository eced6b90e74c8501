"""The verb ``watch``: says what begins and ends to be wrong with running machines, and sets their balloons."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_told
from tinamou.errors import SpecError
from tinamou.fields import size_of
from tinamou.units import Size

if TYPE_CHECKING:
    from tinamou.monitor.balance import Moved
    from tinamou.monitor.watching import Change, Looked, Watch

WRONG = 1
"""The exit status of ``--once`` when something is wrong, as of ``doctor``."""


def command(
    *names: str,
    once: Switch = False,
    interval: float = 10.0,
    balance: Switch = False,
    budget: str = "",
    unit: Switch = False,
    json: Switch = False,
) -> int:
    """Look at running machines, and say what begins and what ends to be wrong; Ctrl-C ends it.

    Parameters
    ----------
    names
        The machines; all that run at the moment when left out.
    once
        Look once. The exit status is 1 when something is wrong.
    interval
        Seconds between two looks; what QEMU tells by itself is looked at when it is told.
    balance
        Take memory back from idle guests that have a memory.floor, and give it to those that are short.
    budget
        The memory all machines together may hold, for example 8G; the host's alone counts when left out.
    unit
        Only print a systemd unit that runs this watch.
    json
        The findings of --once as one document; else one line of JSON for each change.
    """
    limit = size_of(budget, "--budget") if budget else None
    if limit is not None and not balance:
        raise SpecError("--budget is for --balance", fix="give both, or neither")
    if unit:
        print(_unit(names, interval, balance, budget, json), end="")
        return 0
    watch = _watch(names, balance, limit, once)
    if once:
        return run_until_told(_once(watch, json))

    def tell(looked: Looked, changes: list[Change]) -> None:
        for change in changes:
            print(jsonlib.dumps(_plain_change(change)) if json else _line(change), flush=True)
        for moved in looked.moved:
            print(jsonlib.dumps(_plain_move(moved)) if json else _balloon_line(moved), flush=True)

    return run_until_told(watch.run(max(0.5, interval), tell))


def _watch(names: Sequence[str], balance: bool, budget: Size | None, once: bool) -> Watch:
    from tinamou.machine.reconcile import reconcile
    from tinamou.monitor.balance import Balance
    from tinamou.monitor.look import Patience
    from tinamou.monitor.watching import Watch
    from tinamou.state import machines

    for name in names:
        machines.find(name)
    kept = Balance(budget) if balance else None
    patience = Patience(every=0) if once else Patience()
    return Watch(names, balance=kept, patience=patience, tidy=reconcile, complain=output.warn)


async def _once(watch: Watch, json: bool) -> int:
    looked = await watch.look()
    status = WRONG if looked.wrong() else 0
    if json:
        output.print_json({"status": status, **_plain(looked)})
        return status
    for change in watch.changes(looked):
        print(_line(change))
    for moved in looked.moved:
        print(_balloon_line(moved))
    print(_summary(looked))
    return status


def _summary(looked: Looked) -> str:
    """``2 machines: all is well``."""
    count, wrong = sum(one.running for one in looked.seen.values()), [finding for _, finding in looked.wrong()]
    unknown = sum(str(one.severity) == "unknown" for every in looked.findings.values() for one in every)
    said = ", ".join(
        f"{number} {kind}" for kind in ("bad", "warning") if (number := sum(str(one.severity) == kind for one in wrong))
    )
    left = f" ({unknown} thing{'' if unknown == 1 else 's'} could not be found out: --json)" if unknown else ""
    return f"{count} machine{'' if count == 1 else 's'}: {said or 'all is well'}{left}"


def _line(change: Change) -> str:
    """A time, whose, how grave, what, and in a second line what to do."""
    finding, clock = change.finding, time.strftime("%H:%M:%S", time.localtime(change.at))
    word = str(finding.severity) if change.event == "begins" else "over"
    fix = f"\n         → {finding.fix}" if finding.fix and change.event == "begins" else ""
    return f"{clock} {change.machine or 'host'}: {word}: {finding.title}: {finding.evidence}{fix}"


def _balloon_line(moved: Moved) -> str:
    one, clock = moved.decision, time.strftime("%H:%M:%S")
    failed = f"; it failed: {moved.failed}" if moved.failed else ""
    return f"{clock} {one.name}: balloon: {one.before.short} → {one.target.short}: {one.why.reason}{failed}"


def _plain(looked: Looked) -> dict[str, Any]:
    findings = [
        {"machine": name or None, **finding.to_json()} for name, every in looked.findings.items() for finding in every
    ]
    return {"findings": findings, "balloons": [_plain_move(one) for one in looked.moved]}


def _plain_change(change: Change) -> dict[str, Any]:
    return {"at": round(change.at, 3), "event": change.event, "machine": change.machine or None, **change.finding.to_json()}


def _plain_move(moved: Moved) -> dict[str, Any]:
    one = moved.decision
    sizes = {"before": int(one.before), "target": int(one.target)}
    how = {"why": one.why.reason, "failed": moved.failed}
    return {"at": round(time.time(), 3), "event": "balloon", "machine": one.name, **sizes, **how}


def _unit(names: Sequence[str], interval: float, balance: bool, budget: str, json: bool) -> str:
    """The same watch as a service."""
    from tinamou.monitor.service_unit import service_unit
    from tinamou.system import systemd

    words = [*systemd.command(), "watch", *names, "--interval", f"{interval:g}"]
    words += [*(["--balance"] if balance else []), *(["--budget", budget] if budget else []), *(["--json"] if json else [])]
    return service_unit(words, systemd.environment())
