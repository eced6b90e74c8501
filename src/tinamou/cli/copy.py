"""The verb ``copy``: a machine that is off to another host."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done


def command(name: str, host: str, /, *, new: str = "", trust: Switch = False, json: Switch = False) -> None:
    """Make the same machine on another host, off; the one here stays as it is. They are one machine: run one of them.

    Parameters
    ----------
    name
        The machine, which must be off.
    new
        Another name there.
    trust
        Take its description as it is; without, what it says of this host (folders, devices, bridges, ports) is left out.
    json
        The machine there, and what is to be said of it, as JSON.
    """
    from tinamou.fleet.copying import copy

    done = run_until_done(copy(name, host, new, trust=trust, progress=output.progress))
    output.warn(*done.notes)
    if json:
        output.print_json(late.asdict(done))
    else:
        print(done.name)
