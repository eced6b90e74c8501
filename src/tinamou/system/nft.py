"""The host's packet filter: tinamou's own tables, ``netdev tinamou`` and ``inet tinamou``; no other is ever named.

Source: nft(8). Every change is one transaction.
"""

from __future__ import annotations

import json
from typing import Any

from tinamou.system.exec import CommandError, find_tool, run

__all__ = ["TABLE", "add", "contents", "dropped", "remove", "replace"]

TABLE = "tinamou"


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


def replace(family: str, owner: str, script: str) -> None:
    """Put lines in place of all of one interface's chains, in one step: nothing passes between; sets named again stay.

    Raises CommandError; everything is then as it was.
    """
    there = contents(family)
    chains = [entry["chain"]["name"] for entry in there if "chain" in entry]
    mine = [name for name in chains if name.endswith(f"-{owner}")]
    sets = [entry["set"]["name"] for entry in there if "set" in entry and entry["set"]["name"].endswith(f"-{owner}")]
    lines = [f"flush chain {family} {TABLE} {name}" for name in mine]
    lines += [f"delete chain {family} {TABLE} {name}" for name in mine if f" {name} " not in script]
    lines += [f"delete set {family} {TABLE} {name}" for name in sets if f" {name} " not in script]
    _nft("-f", "-", script="\n".join([f"add table {family} {TABLE}", *lines, script]) + "\n")


def dropped(owner: str) -> dict[str, int]:
    """Packets one interface's rules dropped, by the rules' comments; none where there is no nft to make rules with."""
    found: dict[str, int] = {}
    if find_tool("nft") is None:
        return found
    for entry in contents("netdev"):
        rule = entry.get("rule", {})
        if str(rule.get("chain", "")).endswith(f"-{owner}") and "comment" in rule:
            counted = next((part["counter"]["packets"] for part in rule["expr"] if "counter" in part), 0)
            found[rule["comment"]] = found.get(rule["comment"], 0) + int(counted)
    return found


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
