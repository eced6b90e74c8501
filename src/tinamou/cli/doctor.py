"""The verb ``doctor``: what stands in the way of fast and safe machines on this host, and what to do about it."""

from __future__ import annotations

import sys

from tinamou.cli import output
from tinamou.cli.grammar import Switch


def command(
    machine: str = "",
    *,
    fix: Switch = False,
    json: Switch = False,
) -> int:
    """Examine the host, and a machine when one is named. The exit status is 1 when something cannot work.

    Parameters
    ----------
    machine
        A machine to examine as well.
    fix
        Apply the remedies that tinamou may apply, until the next reboot, and examine again.
    json
        The findings as JSON.
    """
    from tinamou.doctor import remedies
    from tinamou.doctor.examine import examine
    from tinamou.doctor.machine import examine_machine
    from tinamou.doctor.report import exit_status, summary, table, to_json
    from tinamou.doctor.this_host import this_host
    from tinamou.state import machines

    record = machines.find(machine) if machine else None
    seen = this_host()
    findings = examine(seen)
    if fix:
        for line in remedies.apply(findings, seen.files):
            output.warn(line)
        findings = examine(this_host())
    if record is not None:
        findings = [*examine_machine(record, seen), *findings]
    if json:
        output.print_json(to_json(findings))
    else:
        from rich.console import Console

        Console(file=sys.stdout).print(table(findings))
        print(summary(findings))
    return exit_status(findings)
