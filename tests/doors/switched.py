"""A machine with ports of Open vSwitch: a VLAN, a trunk, a bond with its ways of agreeing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fields import Group, host
from seen import Seen

from tinamou.parts.net.wiring import link_name


def _describe(place: Path) -> dict[str, Any]:
    bonded = {"type": "ovs", "bridge": "sw0", "bond": "up", "bond_mode": "balance-tcp", "lacp": "active"}
    return {
        "name": "walk",
        "accel": "tcg",
        "memory": {"size": "256M"},
        "net": [
            {"type": "ovs", "bridge": "sw0", "vlan": 5},
            {"type": "ovs", "bridge": "sw0", "trunk": [6, 7]},
            bonded,
            bonded,
        ],
    }


def _port(seen: Seen, number: int, column: str) -> str:
    return seen.run("ovs-vsctl", "get", "port", link_name(str(seen.record.directory), number), column).strip()


def _bond(seen: Seen, column: str) -> str:
    stem = link_name(str(seen.record.directory), 0).rpartition("-")[0]
    return seen.run("ovs-vsctl", "get", "port", f"{stem}-up", column).strip()


SWITCHED = Group(
    _describe,
    {
        "net[].vlan": host(lambda seen: _port(seen, 0, "tag"), "5"),
        "net[].trunk": host(lambda seen: _port(seen, 1, "trunks"), "[6, 7]"),
        "net[].bond": host(lambda seen: len(_bond(seen, "interfaces").split(",")), 2),
        "net[].bond_mode": host(lambda seen: _bond(seen, "bond_mode"), "balance-tcp"),
        "net[].lacp": host(lambda seen: _bond(seen, "lacp"), "active"),
    },
)
