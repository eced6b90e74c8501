"""The verb ``rename``: give a machine another name."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(name: str, new: str, /, *, json: Switch = False) -> None:
    """Give a machine that is off another name; its guest keeps its host name and addresses.

    Parameters
    ----------
    new
        Its name from now on.
    json
        The names as JSON.
    """
    done = run_until_done(keeping.rename(name, new))
    output.warn(*done.notes)
    output.result(
        {"name": done.record.name, "former": done.record.former, "notes": list(done.notes)}, done.record.name, json=json
    )
