"""Open vSwitch, through ovs-vsctl(8): bridges, ports, and whether it answers at all."""

from __future__ import annotations

import os

from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run

__all__ = ["add_port", "bridges", "delete_port", "problem"]


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


def add_port(bridge: str, name: str, *, owner: str, vlan: int, trunk: tuple[int, ...], rate_out: int, rate_in: int) -> None:
    """Add an interface as a port; rates in bytes a second, 0 for none. Raises CommandError, TimeoutExpired."""
    words = ["--may-exist", "add-port", bridge, name]
    words += [f"tag={vlan}"] if vlan else []
    words += [f"trunks={','.join(str(one) for one in trunk)}"] if trunk else []
    words += ["--", "set", "interface", name, f"external_ids:tinamou={owner}"]
    if rate_out:
        kbit = rate_out * 8 // 1000
        words += [f"ingress_policing_rate={kbit}", f"ingress_policing_burst={max(kbit // 10, 1000)}"]
    if rate_in:
        words += ["--", "set", "port", name, "qos=@qos", f"external_ids:tinamou={owner}"]
        words += ["--", "--id=@qos", "create", "qos", "type=linux-htb", f"other_config:max-rate={rate_in * 8}"]
        words += [f"external_ids:tinamou={name}"]
    _vsctl(*words)


def delete_port(bridge: str, name: str) -> None:
    """Delete a port and its QoS record, if they are there. Raises CommandError, TimeoutExpired."""
    _vsctl("--no-wait", "--if-exists", "del-port", bridge, name)
    for record in _vsctl("--no-wait", "--columns=_uuid", "--bare", "find", "qos", f"external_ids:tinamou={name}").split():
        _vsctl("--no-wait", "destroy", "qos", record)
