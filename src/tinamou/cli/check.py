"""The verb ``check``: whether a machine's disks are whole."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.errors import ImageError
from tinamou.state import machines


def command(
    name: str,
    /,
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    repair: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at every file of every disk and snapshot of a machine.

    Parameters
    ----------
    name
        The machine.
    quick
        Headers, tables and links only; without, qemu-img walks every file.
    repair
        Have damaged files repaired; a copy of each is kept first. The machine must be off.
    """
    from tinamou.machine.blocking import wait_for
    from tinamou.machine.snapshots import examine

    report = wait_for(examine(machines.find(name), deep=not quick, repair=repair))
    errors = sum(one.severity == "error" for one in report.findings)
    if json:
        plain = {"findings": [dataclasses.asdict(one) for one in report.findings]}
        output.print_json({**plain, "repaired": {file: str(copy) for file, copy in report.repaired.items()}})
    else:
        for one in report.findings:
            fix = f"\n    fix: {one.fix}" if one.fix else ""
            print(f"{one.severity:<8} {one.file}: {one.what}{fix}")
        for file, copy in report.repaired.items():
            print(f"repaired {file}; what it was before is {copy}")
        print(f"{name}: {errors} errors" if errors else f"{name}: the disks are whole")
    return ImageError.code if errors else 0
