"""The verb ``upgrade``: put another QEMU under machines while they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError

if TYPE_CHECKING:
    from tinamou.operations.upgrading import Outdated


def command(
    *names: str,
    to: str = "",
    all: Switch = False,
    list: Switch = False,
    quiet: Switch = False,
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
        Show those, and change nothing: both versions, and what the package's changelog names as fixed in between.
    quiet
        With --list, a sentence for each, for whoever has just installed packages; nothing where there is none.
    """
    from tinamou.operations import upgrading

    if quiet and not list:
        problem = Problem("quiet", True, "is about what --list shows", "say --list too")
        raise SpecError("there is nothing to be quiet about", problems=[problem])
    if bool(names) == (all or list):
        reason = "is said twice" if names else "is not said"
        problem = Problem("names", " ".join(names) or None, reason, "name machines, or say --all or --list")
        raise SpecError("which machines are meant is unclear", problems=[problem])
    found = upgrading.outdated(to)
    if list:
        _show(found, quiet=quiet, json=json)
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


def _show(found: Sequence[Outdated], *, quiet: bool, json: bool) -> None:
    from tinamou.operations.upgrading import COLUMNS

    if json:
        output.print_json([{**late.asdict(one), "cves": one.cves} for one in found])
        return
    if quiet:
        for one in found:
            fixed = f", which fixes {', '.join(one.cves)}" if one.cves else ""
            output.warn(f"{one.name} runs on {one.runs}, and {one.installed} is here{fixed}: tinamou upgrade {one.name}")
        return
    rows = [(one.name, one.runs, one.installed, one.why, " ".join(one.cves) or _unknown(one)) for one in found]
    output.lines(COLUMNS, rows)
    for line in dict.fromkeys(line for one in found for line in one.security or ()):
        output.say(line)


def _unknown(one: Outdated) -> str:
    return "no CVE" if one.security is not None else "no changelog here knows both"
