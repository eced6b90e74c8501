"""The host's packet filter: tinamou's own tables, ``netdev tinamou`` and ``inet tinamou``; no other is ever named.

Source: nft(8). Every change is one transaction.
"""

from __future__ import annotations

import json
from typing import Any

from tinamou.system.exec import CommandError, find_tool, run

__all__ = ["FAMILIES", "TABLE", "add", "contents", "remove"]

TABLE = "tinamou"
FAMILIES = ("netdev", "inet")


def _nft(*words: str, script: str | None = None) -> str:
    return run([find_tool("nft") or "nft", *words], input=script, timeout=20)


def add(family: str, script: str) -> None:
    """Lines of nft(8) that add to the table of ``family``; all or none. Raises CommandError."""
    _nft("-f", "-", script=f"add table {family} {TABLE}\n{script}")


def contents(family: str) -> list[dict[str, Any]]:
    """The table's chains, sets and rules as nft prints them in JSON; empty when there is no table."""
    try:
        found = json.loads(_nft("-j", "list", "table", family, TABLE))["nftables"]
    except CommandError:
        return []
    return [entry for entry in found if "metainfo" not in entry and "table" not in entry]


def remove(family: str, owner: str) -> None:
    """Remove the chains and sets of one interface (``in-OWNER``, ``out-OWNER``, …), and the table with its last chain."""
    there = contents(family)
    chains = [entry["chain"]["name"] for entry in there if "chain" in entry]
    sets = [entry["set"]["name"] for entry in there if "set" in entry]
    mine = [name for name in chains if name.endswith(f"-{owner}")]
    lines = [f"flush chain {family} {TABLE} {name}" for name in mine]
    lines += [f"delete chain {family} {TABLE} {name}" for name in mine]
    lines += [f"delete set {family} {TABLE} {name}" for name in sets if name.endswith(f"-{owner}")]
    if mine and len(mine) == len(chains):
        lines = [f"delete table {family} {TABLE}"]
    if lines:
        _nft("-f", "-", script="\n".join(lines) + "\n")
