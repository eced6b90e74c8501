"""Backend ``ovs``: a port of an Open vSwitch bridge, with VLAN, trunk and rates.

Source: ovs-vsctl(8), ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

from tinamou.blueprint import JoinOvs, MakeTap, Note, Step, Why
from tinamou.errors import Problem
from tinamou.parts.net import tap
from tinamou.parts.net.spec import parse_rate
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["check", "contribute", "port"]


def contribute(nic: Nic) -> Wired:
    """A tap of our own that becomes a port; without offloads where the switch is a program (``datapath_type=netdev``)."""
    spec = nic.spec
    userspace = nic.facts.net.ovs.get(spec.bridge) == "netdev"
    queues = 1 if userspace else nic.queues
    why = Why("spec net.bridge", f"the guest is a port of Open vSwitch bridge {spec.bridge}")
    steps: list[Step] = [MakeTap(nic.link, queues, why, spec.mtu), port(nic, why)]
    wired = tap.wire(nic, nic.link, queues, why, steps, offload=not userspace)
    if userspace:
        text = (
            f"{spec.bridge} switches in a program (datapath_type=netdev): offloads are off, unfinished packets would be lost"
        )
        note = Note("info", text, Why("backend ovs", "the userspace datapath drops packets whose checksum is unfinished"))
        part = wired.contribution
        return Wired(type(part)(part.elements, part.flags, part.steps, (*part.notes, note)), queues, offload=False)
    return wired


def port(nic: Nic, why: Why, *, socket: str = "") -> JoinOvs:
    """The machine's port of the switch; with ``socket`` one that reads the guest's memory over vhost-user."""
    spec, machine = nic.spec, nic.facts.place.name
    return JoinOvs(
        nic.link,
        spec.bridge,
        machine,
        why,
        spec.vlan,
        spec.trunk,
        parse_rate(spec.rate_out),
        parse_rate(spec.rate_in),
        socket,
        f"{nic.link.rpartition('-')[0]}-{spec.bond}" if spec.bond else "",
        spec.bond_mode,
        spec.lacp,
    )


def check(nic: Nic) -> list[Problem]:
    """Open vSwitch that does not answer, or a bridge it does not have."""
    path, net, name = f"net[{nic.number}].bridge", nic.facts.net, nic.spec.bridge
    if net.ovs_problem:
        return [
            Problem(
                path, name, net.ovs_problem, "install openvswitch-switch and start it: systemctl start openvswitch-switch"
            )
        ]
    if name not in net.ovs:
        others = ", ".join(sorted(net.ovs)) or "none"
        return [Problem(path, name, "Open vSwitch has no such bridge", f"ovs-vsctl add-br {name}; bridges here: {others}")]
    return []
