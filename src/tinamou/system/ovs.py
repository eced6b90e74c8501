"""Open vSwitch, through ovs-vsctl(8): its bridges, what it counts, and whether it answers at all."""

from __future__ import annotations

import os

from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run

__all__ = ["bridges", "counters", "has_dpdk", "problem", "vsctl"]


def vsctl(*words: str, seconds: int = 5) -> str:
    """What ovs-vsctl prints. Raises CommandError, TimeoutExpired."""
    elsewhere = {name: os.environ[name] for name in ("OVS_RUNDIR",) if name in os.environ}
    argv = [find_tool("ovs-vsctl") or "ovs-vsctl", f"--timeout={seconds}", *words]
    return run(argv, timeout=seconds + 5, environment=elsewhere)


def problem() -> str:
    """Why Open vSwitch cannot be used, empty when it answers."""
    if find_tool("ovs-vsctl") is None:
        return "Open vSwitch is not installed"
    try:
        vsctl("--no-wait", "show")
    except (CommandError, TimeoutExpired) as error:
        last = error.stderr.strip().splitlines()[-1:] if isinstance(error, CommandError) else []
        return "Open vSwitch does not answer: " + (last[0] if last else "it took too long")
    return ""


def bridges() -> dict[str, str]:
    """Bridges and their datapath type, ``system`` or ``netdev``. Raises CommandError."""
    found = {}
    for name in vsctl("--no-wait", "list-br").split():
        kind = vsctl("--no-wait", "get", "bridge", name, "datapath_type").strip().strip('"')
        found[name] = kind or "system"
    return found


def has_dpdk() -> bool:
    """Whether the switch runs with DPDK, and can read guests' memory. Raises CommandError."""
    return vsctl("--no-wait", "--if-exists", "get", "Open_vSwitch", ".", "dpdk_initialized").strip() == "true"


def counters(name: str) -> dict[str, int]:
    """What an interface has counted, by the switch's names. Raises CommandError, TimeoutExpired."""
    text = vsctl("--no-wait", "--if-exists", "get", "interface", name, "statistics").strip().strip("{}")
    pairs = (pair.partition("=") for pair in text.split(", ") if pair)
    return {key: int(value) for key, _, value in pairs}
