"""Ports of Open vSwitch bridges: made, joined to bonds, limited, deleted (source: ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

from tinamou.blueprint import JoinOvs
from tinamou.system.ovs import vsctl

__all__ = ["add_port", "delete_port", "set_rates"]

_BURST = 262144
"""Bytes that may pass at once under a rate."""


def add_port(port: JoinOvs) -> None:
    """Make the interface a port, or a member of its bond's port. Raises CommandError, TimeoutExpired."""
    name = port.name
    kind = ["type=dpdkvhostuserclient", f"options:vhost-server-path={port.socket}"] if port.socket else []
    words = [*_joined(port), "--", "set", "interface", name, f"external_ids:tinamou={port.machine}", *kind]
    vsctl(*words, *_policed(port))
    if port.rate_in:
        set_rates(port)


def _joined(port: JoinOvs) -> list[str]:
    """Commands for ovs-vsctl that bring the port, with its VLANs, into being.

    ``lacp-time=fast``: a cable pulled inside the guest leaves the tap up, and is noticed in 3 seconds instead of 90.
    """
    name, target = port.name, port.bond or port.name
    new = ["--", "--id=@new", "create", "interface", f"name={name}", "--"]
    if not port.bond:
        words = ["--may-exist", "add-port", port.bridge, name]
    elif _members(port.bond):
        words = [*new, "add", "port", target, "interfaces", "@new"]
    else:
        words = [*new, "--id=@bond", "create", "port", f"name={target}", "interfaces=@new"]
        words += ["--", "add", "bridge", port.bridge, "ports", "@bond"]
    settings = [f"tag={port.vlan}"] if port.vlan else []
    settings += [f"trunks={','.join(str(one) for one in port.trunk)}"] if port.trunk else []
    if port.bond:
        settings += [f"bond_mode={port.bond_mode}", f"lacp={port.lacp}", "other_config:lacp-time=fast"]
    return [*words, *(["--", "set", "port", target, *settings] if settings else [])]


def _policed(port: JoinOvs) -> list[str]:
    """What the guest may send, as the end of a ``set interface``."""
    kbit = port.rate_out * 8 // 1000
    return [f"ingress_policing_rate={kbit}", f"ingress_policing_burst={max(kbit // 10, 1000) if kbit else 0}"]


def set_rates(port: JoinOvs) -> None:
    """Set what the guest may send and receive from now on. Raises CommandError, TimeoutExpired."""
    name, target = port.name, port.bond or port.name
    old = _qos(name)
    words = ["--", "set", "interface", name, *_policed(port), "--"]
    if port.rate_in:
        limits = ["type=linux-htb", f"other_config:max-rate={port.rate_in * 8}"]
        if port.socket:
            limits = ["type=egress-policer", f"other_config:cir={port.rate_in}", f"other_config:cbs={_BURST}"]
        words += ["set", "port", target, "qos=@qos", "--"]
        words += ["--id=@qos", "create", "qos", *limits, f"external_ids:tinamou={name}"]
    else:
        words += ["clear", "port", target, "qos"]
    vsctl(*words)
    _destroy(old)


def delete_port(bridge: str, name: str, bond: str = "") -> None:
    """Delete a port and its QoS record, if they are there; a bond's goes with its last member.

    Raises CommandError, TimeoutExpired.
    """
    if bond:
        _leave(bridge, name, bond)
    else:
        vsctl("--no-wait", "--if-exists", "del-port", bridge, name)
    _destroy(_qos(name))


def _leave(bridge: str, name: str, bond: str) -> None:
    """Take an interface out of a bond, if it is in it."""
    members = set(_members(bond))
    mine = members & set(vsctl("--no-wait", "--bare", "--columns=_uuid", "find", "interface", f"name={name}").split())
    if mine and mine == members:
        vsctl("--no-wait", "--if-exists", "del-port", bridge, bond)
    else:
        for one in mine:
            vsctl("--no-wait", "remove", "port", bond, "interfaces", one)


def _members(bond: str) -> list[str]:
    return vsctl("--no-wait", "--bare", "--columns=interfaces", "find", "port", f"name={bond}").split()


def _qos(name: str) -> list[str]:
    return vsctl("--no-wait", "--columns=_uuid", "--bare", "find", "qos", f"external_ids:tinamou={name}").split()


def _destroy(records: list[str]) -> None:
    for record in records:
        vsctl("--no-wait", "destroy", "qos", record)
