"""The verb ``export``: a whole machine to one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import SpecError
from tinamou.operations import keeping


def command(
    name: str,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    to: str = "",
    force: Switch = False,
    json: Switch = False,
) -> None:
    """Write a whole machine to one file: its description, disks, UEFI variables and TPM, what it boots from, its key.

    Parameters
    ----------
    name
        The machine; one that runs is exported as after a power cut.
    file
        The file to write, or - for stdout.
    to
        Another tool: tinamou convert NAME --to it writes the machine for that.
    force
        Replace a file that is there.
    json
        What was written as JSON.
    """
    if to:
        fix = f"tinamou convert {name} --to {to}; without --to the file is for tinamou import"
        raise SpecError(f"{to} reads no file of this kind", fix=fix)
    target = None if file == "-" else Path(file).absolute()
    if target is None and json:
        raise SpecError("stdout cannot be both the machine and JSON", fix="name a file, or leave --json out")
    size = run_until_done(keeping.export(name, target, force=force, progress=output.progress))
    if json:
        output.print_json({"machine": name, "file": str(target), "size": size})
    elif target:
        output.say(f"{size >> 20} MiB")
