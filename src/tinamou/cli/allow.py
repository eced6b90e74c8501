"""The verb ``allow``: who else on this host may use a machine of root's."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.cli.grammar import Switch


def command(
    name: str = "",
    /,
    *who: str,
    revoke: Switch = False,
    json: Switch = False,
) -> None:
    """Let other users use a machine of root's: exec, cp, console, logs and show, by its name; nothing else.

    tinamou allow web alice @staff     they may
    tinamou allow --revoke web alice   alice may not any more
    tinamou allow                      who may use which machine

    It lasts until it is revoked, over restarts of the machine and of the host.

    Parameters
    ----------
    name
        The machine; all machines when left out.
    who
        Users, by name or number, and groups as @GROUP. Without any it is said who may.
    revoke
        Take it back, from these or from all.
    json
        Print what is so now as JSON.
    """
    from tinamou.operations import allowing

    if name and (who or revoke):
        output.warn(*allowing.change(name, who, revoke=revoke))
    rows = allowing.shown(name)
    if json:
        output.print_json(rows)
    elif not name or not (who or revoke):
        lines = [{"machine": machine, "users": " ".join(names) or "root alone"} for machine, names in rows.items()]
        output.table(lines, ("machine", "users"))
