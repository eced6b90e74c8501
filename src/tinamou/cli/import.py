"""The verb ``import``: a whole machine from a file."""

# ruff: noqa: N999
from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    name: str = "",
    trust: Switch = False,
    json: Switch = False,
) -> None:
    """Make a machine of a file that tinamou export wrote; it is off.

    The file is trusted with nothing but its guest: what its description says of the host it was on is left out, and told.

    Parameters
    ----------
    file
        The file, or - for stdin.
    name
        Another name than the machine had.
    trust
        Take its description as it is, with folders, devices and networks of this host.
    json
        The machine, and what is to be said of it, as JSON.
    """
    source = None if file == "-" else Path(file)
    made = run_until_done(keeping.take_in(source, name, trust=trust, progress=output.progress))
    output.warn(*made.notes)
    output.result(
        {"name": made.record.name, "base": made.record.base or None, "notes": list(made.notes)}, made.record.name, json=json
    )
