"""The verbs below ``cluster``: lines for a Pacemaker cluster's shell, of machines and of nodes."""

from __future__ import annotations

import os
from typing import Literal

from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError
from tinamou.fleet import cluster
from tinamou.fleet.cluster import Machine
from tinamou.fleet.placement import need_of
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.spec import load_spec
from tinamou.system.rooted import Rooted

app: Group = Group()


@app.command
def resource(*machines: str, shell: Literal["crm", "pcs"] = "crm", only_on: str = "", guest: Switch = False) -> None:
    """Print what makes machines resources of the cluster this host is in: what they use, and the rules among them.

    crm: tinamou cluster resource FILE.toml > FILE; crm configure load update FILE. pcs: the lines are commands.

    Parameters
    ----------
    machines
        Machine files, at the same path on every node; or names of machines that are on every node.
    shell
        The cluster's shell: crm or pcs.
    only_on
        A node to which they are bound, and never restarted elsewhere: for a cluster that does not fence.
    guest
        Have the cluster ask the guests every minute as well: a machine whose guest does not answer is started anew.
    """
    if not machines:
        problem = Problem("machines", None, "none is named", "tinamou cluster resource FILE.toml…")
        raise SpecError("there is nothing to write", problems=[problem])
    every = [_machine(one) for one in machines]
    for line in cluster.resource_lines(every, shell, run_until_done(cluster.fencing()), only_on=only_on, guest=guest):
        print(line)


def _machine(said: str) -> Machine:
    from tinamou.cli.described import described
    from tinamou.state import machines

    if not said.endswith(".toml"):
        record = machines.find(said)
        return Machine(need_of(load_spec({**record.spec, "name": record.name})))
    need = need_of(described(said, {}))
    if not need.name:
        problem = Problem("name", None, "a resource has the name of its machine", 'write name = "…" into the file')
        raise SpecError(f"{said} names no machine", problems=[problem])
    return Machine(need, os.path.abspath(said))  # noqa: PTH100  a link stays one


@app.command
def node(name: str = "", *, shell: Literal["crm", "pcs"] = "crm") -> None:
    """Print what this host has for machines, as attributes of its node.

    Parameters
    ----------
    name
        What the cluster calls it; its hostname when left out.
    shell
        The cluster's shell: crm or pcs.
    """
    for line in cluster.node_lines(name or os.uname().nodename, probe_host(), probe_pci(Rooted(), {}), shell):
        print(line)
