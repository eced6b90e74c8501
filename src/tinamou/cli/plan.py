"""The verb ``plan``: what would be done, and why; nothing is built, taken or started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.options import MachineOptions, spec_from
from tinamou.launch.argv import argv as words_of
from tinamou.launch.argv import shell_line, spelled
from tinamou.launch.difference import step_target
from tinamou.machine.host_side import leased
from tinamou.machine.planning import plan_only
from tinamou.machine.starting import plan_again
from tinamou.probe.host import probe_host
from tinamou.system.syscalls import GROUPS
from tinamou.units import Size


def command(
    image: str = "",
    *,
    options: Annotated[MachineOptions | None, Parameter(name="*", negative="")] = None,
    why: Switch = False,
    host: Path | None = None,
    argv: Annotated[bool, Parameter(name="--argv", negative="")] = False,
    json: Switch = False,
) -> None:
    """Show the plan for a machine.

    Parameters
    ----------
    image
        As for run; or the name of a machine that exists.
    why
        Every argument and host step with its reason and who asked for it.
    argv
        A command line that can be pasted into a shell.
    host
        Plan for another host, as root there: a file of tinamou host record, or a folder with its sys and proc.
    json
        The whole plan as JSON.
    """
    if host is not None:
        from tinamou.machine.elsewhere import plan_for

        plan = plan_for(spec_from(image, options), host)
    else:
        plan = plan_again(image) or plan_only(spec_from(image, options))
    if json:
        output.print_json({**late.asdict(plan), "argv": words_of(plan)})
    elif argv:
        print(shell_line(words_of(plan)))
    else:
        _print(plan, why=why, elsewhere=host is not None)
    output.notes(plan.notes, why=why)


def _print(plan: Plan, *, why: bool, elsewhere: bool = False) -> None:
    identity = f"as user {plan.confinement.uid}, without capabilities" if plan.confinement.uid else "as you"
    if plan.confinement.locked:
        identity += f", with {Size(plan.confinement.locked)} of memory it may lock"
    if plan.confinement.file_size:
        identity += f", no file longer than {Size(plan.confinement.file_size).mib} MiB"
    if plan.confinement.own_cores:
        identity += ", nobody else on its cores while it runs there"
    print(f"{plan.name}: {plan.arch} on {plan.machine_type}, {plan.accel}, {identity}")
    if plan.pinning and not elsewhere:
        from tinamou.machine.host_picture import picture

        print(f"\n{picture(probe_host(), plan.pinning, leased(''))}")
    print("\nwalls around QEMU")
    for wall in plan.confinement.walls:
        print(f"  {wall.name} {'stands' if wall.stands else 'does NOT stand'}" + (f"\n      {wall.why}" if why else ""))
    print("\nhost steps")
    for step in plan.steps:
        print(
            f"  {type(step).__name__} {step_target(step)}"
            + (f"\n      {step.why.asked_by}: {step.why.reason}" if why else "")
        )
    if plan.confinement.calls:
        print("\nsystem calls QEMU may make")
    for calls in plan.confinement.calls:
        needed = f"\n      {calls.why.asked_by}: {calls.why.reason}" if why else ""
        print(f"  {calls.group}" + (f": {GROUPS[calls.group].why}{needed}" if why else ""))
    print(f"\narguments of {plan.binary}")
    for words, because in spelled(plan):
        print(f"  {chr(32).join(words)}" + (f"\n      {because.asked_by}: {because.reason}" if why else ""))
