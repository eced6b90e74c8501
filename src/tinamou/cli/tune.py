"""The verb ``tune``: measures which choices make a machine faster here, and keeps the winners when asked to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done

if TYPE_CHECKING:
    from tinamou.machine.trials import Choice, Measured, Verdict


def command(
    machine: str,
    *,
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    rounds: int = 3,
    keep: Switch = False,
    json: Switch = False,
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
    from tinamou.state.record import change

    record = machines.find(machine)
    choices = trials.named(only)
    measured = run_until_done(trials.measure(record.spec, choices, rounds, lambda text: output.progress(text, None)))
    verdicts = list(trials.judge(measured))
    if json:
        rows = [late.asdict(one) for one in measured]
        output.print_json({"measured": rows, "verdicts": [late.asdict(one) for one in verdicts]})
    else:
        _print(measured, verdicts)
    if keep:
        spec, kept = _kept(record.spec, choices, verdicts)
        change(record, spec=spec)
        said = f"kept for the next start of {machine}: {', '.join(kept)}" if kept else "nothing won clearly: nothing is kept"
        print(said, file=sys.stderr)


def _kept(spec: dict[str, Any], choices: Sequence[Choice], verdicts: Sequence[Verdict]) -> tuple[dict[str, Any], list[str]]:
    from tinamou.machine.trials import merged

    ways = {choice.name: choice.ways for choice in choices}
    clear = [verdict for verdict in verdicts if verdict.clear]
    for verdict in clear:
        spec = merged(spec, ways[verdict.choice][verdict.winner])
    return spec, [f"{verdict.choice} {verdict.winner}" for verdict in clear]


def _print(measured: Sequence[Measured], verdicts: Sequence[Verdict]) -> None:
    rows = [
        {
            "choice": one.choice,
            "way": one.way,
            "rounds": len(one.seconds),
            "median": f"{median(one.seconds):.2f} s" if one.seconds else "-",
            "fastest–slowest": f"{min(one.seconds):.2f}–{max(one.seconds):.2f} s"
            if one.seconds
            else f"not measured: {one.failed}",
        }
        for one in measured
    ]
    output.table(rows, ("choice", "way", "rounds", "median", "fastest–slowest"))
    print()
    for verdict in verdicts:
        print(f"{verdict.choice}: {_judged(verdict)}")
    for name in dict.fromkeys(one.choice for one in measured):
        if name not in {verdict.choice for verdict in verdicts}:
            print(f"{name}: nothing to compare, fewer than two ways could be measured")


def _judged(verdict: Verdict) -> str:
    """``auto won: 23% less time than off`` when the rounds do not overlap."""
    share = f"{verdict.gain:.0%} less time than {verdict.second}"
    if verdict.clear:
        return f"{verdict.winner} won: {share}, beyond the spread"
    return f"no winner: the rounds overlap ({verdict.winner} has the best median, {share})"
