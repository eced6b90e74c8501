"""The verb ``tune``: measures which choices make a machine faster here, and keeps the winners when asked to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tinamou.cli import output

if TYPE_CHECKING:
    from tinamou.machine.trials import Measured, Verdict


def command(
    machine: str,
    *,
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    rounds: int = 3,
    keep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure choices in throw-away twins of a machine: pinning, hugepages, aio, cache, iothread, queues.

    Parameters
    ----------
    machine
        A machine that exists; it is not touched, and need not run.
    only
        Measure this choice alone; may be repeated.
    rounds
        How often each way is measured.
    keep
        Write the ways that clearly won into the machine's spec, for its next start.
    json
        All measurements as JSON.
    """
    from tinamou.machine import trials
    from tinamou.state import machines
    from tinamou.state.record import write

    record = machines.find(machine)
    choices = trials.named(only)
    measured = trials.measure(record.spec, choices, rounds, lambda text: output.progress(text, None))
    output.end_progress()
    verdicts = list(trials.judge(measured))
    if json:
        rows = [dataclasses.asdict(one) for one in measured]
        output.print_json({"measured": rows, "verdicts": [dataclasses.asdict(one) for one in verdicts]})
    else:
        _print(measured, verdicts)
    if keep:
        spec = record.spec
        for verdict in (one for one in verdicts if one.clear):
            choice = next(choice for choice in choices if choice.name == verdict.choice)
            spec = trials.merged(spec, choice.ways[verdict.winner])
        write(dataclasses.replace(record, spec=spec))


def _print(measured: Sequence[Measured], verdicts: Sequence[Verdict]) -> None:
    rows = [
        {
            "choice": one.choice,
            "way": one.way,
            "median": f"{median(one.seconds):.2f} s" if one.seconds else "-",
            "spread": f"{min(one.seconds):.2f}–{max(one.seconds):.2f}" if one.seconds else one.failed,
        }
        for one in measured
    ]
    output.table(rows, ("choice", "way", "median", "spread"))
    for verdict in verdicts:
        share = f"{verdict.gain:.0%} less time"
        if verdict.clear:
            print(f"{verdict.choice}: {verdict.winner} won, {share}")
        else:
            print(f"{verdict.choice}: no difference beyond the spread (median: {verdict.winner}, {share})")
