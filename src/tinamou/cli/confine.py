"""The verb ``confine``: the walls around a running machine, as they are."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.system.shown import visible


def command(name: str, /, *, json: Switch = False) -> int:
    """Look at the walls around a running machine's QEMU and its helpers. The exit status is 1 when a planned one is missing.

    Parameters
    ----------
    json
        What was found as JSON.
    """
    from tinamou.machine.walls import walls_of
    from tinamou.state import machines

    found = walls_of(machines.find(name))
    if json:
        output.print_json([late.asdict(one) for one in found])
    for one in () if json else found:
        print(f"{one.name} ({one.pid})")
        for wall in one.walls:
            state = "stands" if wall.stands else "MISSING" if wall.missing else "no wall"
            why = f"; {wall.planned}" if wall.planned and not wall.stands else ""
            print(visible(f"  {wall.name:12}  {state:7}  {wall.found}{why}"))
    return int(any(wall.missing for one in found for wall in one.walls))
