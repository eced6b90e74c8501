"""The verb ``clone``: make a machine of a machine."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(name: str, new: str, /, *, linked: Switch = False, json: Switch = False) -> None:
    """Make a machine with another's disks and an identity of its own; it is off.

    Parameters
    ----------
    name
        The machine, or template.
    new
        The name of the clone.
    linked
        Copy nothing: both read the same files, and write to new ones.
    json
        The clone, and what is to be said of it, as JSON.
    """
    made = run_until_done(keeping.clone(name, new, linked=linked, progress=output.progress))
    output.warn(*made.notes)
    output.result(
        {"name": made.record.name, "base": name, "linked": linked, "notes": list(made.notes)}, made.record.name, json=json
    )
