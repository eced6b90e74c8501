"""What this host does with its network interfaces: those that somebody works with, and not those that are merely up."""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.system.rooted import Rooted

__all__ = ["used"]

_UP = 1
"""IFF_UP of /sys/class/net/X/flags: whatever manages networks sets it for every card, to see whether a cable is in it."""

_LINK = "20"
"""The scope of the address that an IPv6 interface makes for itself (source: include/net/ipv6.h, IPV6_ADDR_LINKLOCAL)."""

_BY_ITSELF = ("fe80", "ff00")
"""Where the routes lead that it makes along with that."""

_RAW, _EVERYTHING = "3", "0003"
"""A packet socket of a program that hears all there is (source: packet(7), SOCK_RAW and ETH_P_ALL): not one that asks for an
address."""


def used(files: Rooted) -> Iterator[tuple[str, str]]:
    """Each interface that is up and that somebody works with, and how, in words: the first reason that is found.

    Where the host's routes are not known (an older recording), an interface that is up is one that is used.
    """
    routed, heard = _routed(files), _heard(files)
    for name in files.names("/sys/class/net"):
        place = f"/sys/class/net/{name}"
        if not int(files.read(f"{place}/flags") or "0", 16) & _UP:
            continue
        above = [one.removeprefix("upper_") for one in files.names(place, "upper_")]
        if routed is None:
            yield name, "is up"
        elif above:
            yield name, f"is up, and below {' and '.join(above)}"
        elif name in routed:
            yield name, f"is up, and has {routed[name]}"
        elif (files.read(f"{place}/ifindex") or "-") in heard:
            yield name, "is up, and a program hears all it receives"


def _routed(files: Rooted) -> dict[str, str] | None:
    """Interface → why packets of this host go there; None where no routes are shown (source: proc_net(5), ipv6_route)."""
    four = files.read("/proc/self/net/route")
    if four is None:
        return None
    found = {row[-1]: "an address" for row in _rows(files, "if_inet6") if len(row) == 6 and row[3] != _LINK}
    for row in _rows(files, "ipv6_route"):
        if len(row) == 10 and not row[0].startswith(_BY_ITSELF):
            found.setdefault(row[-1], "a route")
    found |= {row[0]: "a route" for row in map(str.split, four.splitlines()[1:]) if row}
    return found


def _heard(files: Rooted) -> set[str]:
    """The numbers of the interfaces that a program hears all of."""
    rows = _rows(files, "packet")
    return {row[4] for row in rows if len(row) > 4 and (row[2], row[3]) == (_RAW, _EVERYTHING)}


def _rows(files: Rooted, name: str) -> list[list[str]]:
    return [line.split() for line in (files.read(f"/proc/self/net/{name}") or "").splitlines()]
