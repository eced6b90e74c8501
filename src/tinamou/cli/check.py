"""The verb ``check``: whether a machine's disks are whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import ImageError, StateError
from tinamou.state import machines

if TYPE_CHECKING:
    from tinamou.snapshots.check import DiskFinding


def command(
    name: str,
    /,
    *,
    quick: Switch = False,
    repair: Switch = False,
    last: Switch = False,
    json: Switch = False,
) -> int:
    """Look at every file of every disk and snapshot of a machine.

    Parameters
    ----------
    quick
        Headers, tables and links only; without, qemu-img walks every file.
    repair
        Have damaged files repaired; a copy of each is kept first. The machine must be off.
    last
        Only show what the last check found, a scheduled one too; nothing is looked at.
    """
    from tinamou.machine.snapshots import examine

    if last:
        return _last(name, json)
    report = run_until_done(examine(machines.find(name), deep=not quick, repair=repair))
    errors = sum(one.severity == "error" for one in report.findings)
    if json:
        plain = {"findings": [late.asdict(one) for one in report.findings]}
        output.print_json({**plain, "repaired": {file: str(copy) for file, copy in report.repaired.items()}})
    else:
        _print(report.findings)
        for file, copy in report.repaired.items():
            print(f"repaired {file}; what it was before is {copy}")
        print(f"{name}: {errors} errors" if errors else f"{name}: the disks are whole")
    return ImageError.code if errors else 0


def _print(findings: list[DiskFinding]) -> None:
    for one in findings:
        fix = f"\n    fix: {one.fix}" if one.fix else ""
        print(f"{one.severity:<8} {one.file}: {one.what}{fix}")


def _last(name: str, json: bool) -> int:
    from tinamou.snapshots.check import DiskFinding, last_results

    kept = last_results(Path(machines.find(name).directory))
    if kept is None:
        raise StateError(f"the disks of {name} were never checked", fix=f"tinamou check {name}")
    findings = [DiskFinding(**one) for one in kept["findings"]]
    errors = sum(one.severity == "error" for one in findings)
    if json:
        output.print_json(kept)
    else:
        _print(findings)
        when = output.when(kept["at"])
        found = f"{errors} errors" if errors else "the disks were whole"
        print(f"{name}: {found} on {when}{'' if kept['deep'] else ' (a quick check)'}")
    return ImageError.code if errors else 0
