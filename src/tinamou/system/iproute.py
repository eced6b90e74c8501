"""Interfaces, bridges and addresses of the host, through iproute2's ip(8) and bridge(8).

Why commands and not netlink sockets: docs/decisions/0060-host-interfaces.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinamou.system.exec import CommandError, find_tool, run

__all__ = ["alias", "batch", "bridge_batch", "exists", "kind", "links", "remove", "routes"]


def batch(lines: Iterable[str]) -> None:
    """Lines of ip(8) without the leading ``ip``, in one process; stops at the first that fails. Raises CommandError."""
    run([find_tool("ip") or "ip", "-batch", "-"], input="\n".join(lines) + "\n", timeout=20)


def bridge_batch(lines: Iterable[str]) -> None:
    """Lines of bridge(8), likewise."""
    run([find_tool("bridge") or "bridge", "-batch", "-"], input="\n".join(lines) + "\n", timeout=20)


def _json(*words: str) -> list[dict[str, Any]]:
    answer = json.loads(run([find_tool("ip") or "ip", "-json", *words], timeout=20) or "[]")
    return [entry for entry in answer if entry]


def links(*filters: str) -> list[dict[str, Any]]:
    """``ip -json -details -stats link show`` with filters such as ``master br0``, ``dev tap0``."""
    return _json("-details", "-stats", "link", "show", *filters)


def alias(owner: Path) -> str:
    """For ``link set``: whose an interface is, a machine's or network's, by its folder; ``ip link`` shows it."""
    return 'alias "' + f"tinamou {owner}".replace('"', "'").replace("\\", "/")[:255] + '"'


def exists(name: str) -> bool:
    """Whether there is an interface of that name in this network namespace."""
    import socket

    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def kind(name: str) -> str:
    """An interface's kind (``bridge``, ``tun``, ``macvtap``), empty for hardware and for none."""
    try:
        found = links("dev", name)
    except CommandError:
        return ""
    return str(found[0].get("linkinfo", {}).get("info_kind", "")) if found else ""


def routes() -> list[Mapping[str, Any]]:
    """The IPv4 routes of the main table."""
    return list(_json("-4", "route", "show"))


def remove(name: str) -> None:
    """Remove an interface, if it is there. Raises CommandError."""
    if exists(name):
        try:
            batch([f"link delete dev {name}"])
        except CommandError:
            if exists(name):
                raise
