"""The verb ``host``: who holds what of this host, what its CPUs look like, and giving back what nobody holds any more."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from cyclopts import App, Parameter

from tinamou.cli import output

app: App = App(name="host", help="What machines hold of this host, and repairing it.", result_action="return_value")

Json = Annotated[bool, Parameter(negative="")]


@app.default
def show(*, json: Json = False) -> None:
    """Show who holds what: CPUs, huge pages, control groups, helper processes, changed kernel values."""
    from tinamou.machine.receipts import holdings, reports

    rows = [dataclasses.asdict(one) for one in holdings()]
    if json:
        output.print_json({"holdings": rows, "pools": _pools(), "reports": reports()})
        return
    shown = [{**row, "running": "yes" if row["running"] else "no"} for row in rows]
    output.table(shown, ("machine", "kind", "what", "running"))
    if not rows:
        print("no machine holds anything of this host")
    for pool in _pools():
        print(f"huge pages of {pool['size']} on node {pool['node']}: {pool['free']} of {pool['total']} free")
    for report in reports():
        output.warn(report)


def _pools() -> list[dict[str, object]]:
    from tinamou.probe.host import probe_host
    from tinamou.units import Size

    pools = [(node.number, size, *counts) for node in probe_host().nodes for size, counts in node.hugepages.items()]
    return [{"node": n, "size": str(Size(size)), "total": total, "free": free} for n, size, total, free in pools if total]


@app.command
def repair(*, json: Json = False) -> None:
    """Give back what no living machine holds; what someone else changed meanwhile is named and left as it is."""
    from tinamou.machine.receipts import repair as mend

    done = mend()
    if json:
        output.print_json({"repaired": done})
        return
    for line in done or ["nothing to repair"]:
        print(line)


@app.command
def topology(*, json: Json = False) -> None:
    """Draw the CPUs, caches and memory nodes, and which machines hold which."""
    from tinamou.cli.host_picture import picture
    from tinamou.machine.host_side import lent
    from tinamou.probe.host import probe_host

    facts = probe_host()
    if json:
        output.print_json(dataclasses.asdict(facts))
    else:
        print(picture(facts, lent=lent("")))
