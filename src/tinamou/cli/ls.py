"""The verb ``ls``: every machine and what it is doing."""

from __future__ import annotations

from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.machine.listing import COLUMNS, lines, rows
from tinamou.machine.reconcile import reconcile
from tinamou.monitor.states import at_once, states_of
from tinamou.state import machines
from tinamou.state.index import look
from tinamou.state.replicated import late


def command(
    *,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
    all_hosts: Switch = False,
    json: Switch = False,
) -> int:
    """List machines.

    Parameters
    ----------
    quiet
        Only their names.
    all_hosts
        Those of the other hosts, too. One that does not answer in its time is named, and the exit status is 120.
    """
    if all_hosts:
        from tinamou.cli.all_hosts import list_machines

        return list_machines(quiet=quiet, json=json)
    found = look()
    output.warn(*reconcile(found))
    records = machines.awake(found)
    if quiet:
        names = sorted([*(row[0] for row in found.rows()), *(record.name for record in records)])
        print(*names, sep="\n", end="\n" if names else "")
        return 0
    if (states := at_once(records)) is None:
        states = run_until_done(states_of(records))
    tables = rows(found, records, states)
    if json:
        output.print_json(tables)
        return 0
    output.lines(COLUMNS, lines(tables))
    for record, seen in zip(records, states, strict=True):
        for said in filter(None, (seen.why, late(record))):
            output.warn(f"{record.name}: {said}")
    return 0
