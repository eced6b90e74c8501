"""The verb ``upgrade``: put another QEMU under machines while they run."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch


def command(
    *names: str,
    to: str = "",
    all: Switch = False,
    list: Switch = False,
    json: Switch = False,
) -> None:
    """Put the QEMU that is installed now under machines while they run; each stands still for some milliseconds.

    A machine that is not forkable is suspended and resumed instead, which is said. One after another; the first that does
    not go over runs on as it was, and ends this.

    Parameters
    ----------
    names
        The machines.
    to
        Another QEMU than the one that is found: a file, a folder, or a pattern with {arch}, as in TINAMOU_QEMU.
    all
        All that run on another QEMU than that, throw-away ones first.
    list
        Show those, and change nothing.
    """
    from tinamou.cli.loop import run_until_done
    from tinamou.errors import Problem, SpecError
    from tinamou.operations import upgrading

    if bool(names) == (all or list):
        reason = "is said twice" if names else "is not said"
        problem = Problem("names", " ".join(names) or None, reason, "name machines, or say --all or --list")
        raise SpecError("which machines are meant is unclear", problems=[problem])
    found = upgrading.outdated(to)
    if list:
        rows = [late.asdict(one) for one in found]
        if json:
            output.print_json(rows)
        else:
            output.lines(upgrading.COLUMNS, [[str(row[column]) for column in upgrading.COLUMNS] for row in rows])
        return

    done = []
    for name in names or [one.name for one in found]:
        upgraded = run_until_done(upgrading.upgrade(name, to, progress=output.progress))
        done.append(upgraded)
        if upgraded.note:
            output.warn(upgraded.note)
        if not json:
            how = f"{upgraded.pause * 1000:.0f} ms" if not upgraded.why else f"{upgraded.pause:.1f} s"
            output.say(f"{name} stood still for {how}: QEMU {upgraded.before} → {upgraded.after}")
    if json:
        output.print_json([late.asdict(one) for one in done])
