"""Backend ``vhost-user``: another program (OVS with DPDK, passt, VPP) takes packets out of the guest's memory itself.

The program's socket is named (``socket``), or QEMU makes it and the program comes (``listen``), or the program is an Open
vSwitch with DPDK, and the interface becomes a port of its ``bridge``, which connects to a socket in the machine's folder.
"""

from __future__ import annotations

from tinamou.blueprint import ClaimSocket, Contribution, Element, ReachSocket, Step, Value, Why
from tinamou.errors import Problem
from tinamou.parts.net import ovs
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["check", "contribute"]


def contribute(nic: Nic) -> Wired:
    """A connection to the program's socket, and a netdev on it.

    The one socket QEMU opens by its path: of one that it was handed it does not believe that descriptors, and with them the
    guest's memory, can be passed over it.
    """
    spec = nic.spec
    listens = spec.listen or bool(spec.bridge)
    path = nic.facts.place.file(f"run/{nic.id}.sock") if listens else spec.socket
    program = f"Open vSwitch bridge {spec.bridge}" if spec.bridge else f"the program behind {spec.socket}"
    why = Why("spec net.bridge" if spec.bridge else "spec net.socket", f"{program} reads and writes packets in guest memory")
    channel: dict[str, Value] = {"id": f"{nic.id}-chr", "path": path}
    channel |= {"server": True, "wait": False} if listens else {}
    props: dict[str, Value] = {"type": "vhost-user", "id": nic.id, "chardev": f"{nic.id}-chr"}
    if nic.queues > 1:
        props["queues"] = nic.queues
    elements = (Element("chardev", channel, why, "socket"), Element("netdev", props, why))
    return Wired(Contribution(elements, steps=_before(nic, path, why)), nic.queues, vhost=True, packed=False, outside=True)


def _before(nic: Nic, path: str, why: Why) -> tuple[Step, ...]:
    """QEMU makes the socket itself; the switch tries to connect from the moment its port is there, once a second."""
    spec, place = nic.spec, nic.facts.place
    if not spec.listen and not spec.bridge:
        return (ReachSocket(path, why, place.uid),)
    return (ovs.port(nic, why, socket=path) if spec.bridge else ClaimSocket(spec.socket, why, path),)


def check(nic: Nic) -> list[Problem]:
    """A bridge of Open vSwitch that is not there, or is switched by the kernel or without DPDK."""
    if not nic.spec.bridge:
        return []
    if problems := ovs.check(nic):
        return problems
    path, name = f"net[{nic.number}].bridge", nic.spec.bridge
    if nic.facts.net.ovs[name] != "netdev":
        reason = "the kernel switches it, which does not read a guest's memory"
        return [Problem(path, name, reason, "use type ovs, or a bridge with datapath_type=netdev")]
    if not nic.facts.net.ovs_dpdk:
        fix = "ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true, with openvswitch-switch-dpdk; or use type ovs"
        return [Problem(path, name, "this Open vSwitch runs without DPDK", fix)]
    return []
