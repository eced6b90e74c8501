"""The verb ``doctor``: what stands in the way of fast and safe machines on this host, and what to do about it."""

from __future__ import annotations

import sys

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError


def command(
    machine: str = "",
    *,
    before_upgrade: str = "",
    fix: Switch = False,
    all_hosts: Switch = False,
    json: Switch = False,
) -> int:
    """Examine the host, and a machine when one is named. The exit status is 1 when something cannot work.

    Parameters
    ----------
    machine
        A machine to examine as well.
    before_upgrade
        Instead, which machines and saved states would survive another QEMU: a file, a folder or a pattern with {arch} as in
        TINAMOU_QEMU, a Debian package's file, or the name of one that apt can download. Each is tried, and not harmed; the
        exit status is 1 when one would not.
    fix
        Apply the remedies that tinamou may apply, until the next reboot, and examine again.
    all_hosts
        Examine the other hosts as well. One that does not answer in its time is named, and the exit status is 120.
    json
        The findings as JSON.
    """
    if all_hosts:
        from tinamou.cli.all_hosts import examine_all

        return examine_all(apart=bool(machine or before_upgrade or fix), json=json)
    if before_upgrade:
        return _before_upgrade(before_upgrade, machine, fix=fix, json=json)
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
        output.warn(*remedies.apply(findings, seen.files))
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


def _before_upgrade(said: str, machine: str, *, fix: bool, json: bool) -> int:
    from tinamou.machine import before_upgrade
    from tinamou.machine.unpacked import unpacked

    if machine or fix:
        problem = Problem("before_upgrade", said, "it is about all machines, and changes nothing", "leave the rest out")
        raise SpecError("that is not said together", problems=[problem])
    with unpacked(said, output.progress) as binary:
        found = run_until_done(before_upgrade.predict(binary, progress=output.progress))
    if json:
        output.print_json([late.asdict(one) for one in found])
    else:
        words = {True: "yes", False: "no", None: "?"}
        rows = [[one.name, one.kind, one.qemu, words[one.survives], one.tried, one.why] for one in found]
        output.lines(before_upgrade.COLUMNS, rows)
    return int(any(one.survives is False for one in found))
