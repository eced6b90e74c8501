"""Open vSwitch, through ovs-vsctl(8): bridges, ports, and whether it answers at all."""

from __future__ import annotations

import os

from tinamou.late import dataclass
from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run

__all__ = ["Port", "add_port", "bridges", "counters", "delete_port", "has_dpdk", "problem", "set_rates"]


_BURST = 262144
"""Bytes that may pass at once under a rate."""


def _vsctl(*words: str, seconds: int = 5) -> str:
    elsewhere = {name: os.environ[name] for name in ("OVS_RUNDIR",) if name in os.environ}
    argv = [find_tool("ovs-vsctl") or "ovs-vsctl", f"--timeout={seconds}", *words]
    return run(argv, timeout=seconds + 5, environment=elsewhere)


def problem() -> str:
    """Why Open vSwitch cannot be used, empty when it answers."""
    if find_tool("ovs-vsctl") is None:
        return "Open vSwitch is not installed"
    try:
        _vsctl("--no-wait", "show")
    except (CommandError, TimeoutExpired) as error:
        last = error.stderr.strip().splitlines()[-1:] if isinstance(error, CommandError) else []
        return "Open vSwitch does not answer: " + (last[0] if last else "it took too long")
    return ""


def bridges() -> dict[str, str]:
    """Bridges and their datapath type, ``system`` or ``netdev``. Raises CommandError."""
    found = {}
    for name in _vsctl("--no-wait", "list-br").split():
        kind = _vsctl("--no-wait", "get", "bridge", name, "datapath_type").strip().strip('"')
        found[name] = kind or "system"
    return found


def has_dpdk() -> bool:
    """Whether the switch runs with DPDK, and can read guests' memory. Raises CommandError."""
    return _vsctl("--no-wait", "--if-exists", "get", "Open_vSwitch", ".", "dpdk_initialized").strip() == "true"


@dataclass(frozen=True)
class Port:
    """An interface as a port of a bridge, or as a member of the port ``bond``; rates in bytes a second, 0 for none.

    ``socket``: the switch connects to the vhost-user socket there instead of opening an interface of the host.
    """

    name: str
    bridge: str
    owner: str
    vlan: int = 0
    trunk: tuple[int, ...] = ()
    rate_out: int = 0
    rate_in: int = 0
    socket: str = ""
    bond: str = ""
    bond_mode: str = ""
    lacp: str = ""


def add_port(port: Port) -> None:
    """Make the interface a port, or a member of its bond's port. Raises CommandError, TimeoutExpired."""
    name = port.name
    kind = ["type=dpdkvhostuserclient", f"options:vhost-server-path={port.socket}"] if port.socket else []
    words = [*_joined(port), "--", "set", "interface", name, f"external_ids:tinamou={port.owner}", *kind]
    _vsctl(*words, *_policed(port))
    if port.rate_in:
        set_rates(port)


def _joined(port: Port) -> list[str]:
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


def _policed(port: Port) -> list[str]:
    """What the guest may send, as the end of a ``set interface``."""
    kbit = port.rate_out * 8 // 1000
    return [f"ingress_policing_rate={kbit}", f"ingress_policing_burst={max(kbit // 10, 1000) if kbit else 0}"]


def set_rates(port: Port) -> None:
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
    _vsctl(*words)
    _destroy(old)


def delete_port(bridge: str, name: str, bond: str = "") -> None:
    """Delete a port and its QoS record, if they are there; a bond's goes with its last member.

    Raises CommandError, TimeoutExpired.
    """
    if bond:
        _leave(bridge, name, bond)
    else:
        _vsctl("--no-wait", "--if-exists", "del-port", bridge, name)
    _destroy(_qos(name))


def _leave(bridge: str, name: str, bond: str) -> None:
    """Take an interface out of a bond, if it is in it."""
    members = set(_members(bond))
    mine = members & set(_vsctl("--no-wait", "--bare", "--columns=_uuid", "find", "interface", f"name={name}").split())
    if mine and mine == members:
        _vsctl("--no-wait", "--if-exists", "del-port", bridge, bond)
    else:
        for one in mine:
            _vsctl("--no-wait", "remove", "port", bond, "interfaces", one)


def _members(bond: str) -> list[str]:
    return _vsctl("--no-wait", "--bare", "--columns=interfaces", "find", "port", f"name={bond}").split()


def _qos(name: str) -> list[str]:
    return _vsctl("--no-wait", "--columns=_uuid", "--bare", "find", "qos", f"external_ids:tinamou={name}").split()


def _destroy(records: list[str]) -> None:
    for record in records:
        _vsctl("--no-wait", "destroy", "qos", record)


def counters(name: str) -> dict[str, int]:
    """What an interface has counted, by the switch's names. Raises CommandError, TimeoutExpired."""
    text = _vsctl("--no-wait", "--if-exists", "get", "interface", name, "statistics").strip().strip("{}")
    pairs = (pair.partition("=") for pair in text.split(", ") if pair)
    return {key: int(value) for key, _, value in pairs}
