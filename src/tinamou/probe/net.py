"""What the host's network offers to a machine; each question is asked only for interfaces that need the answer."""

from __future__ import annotations

import os
from pathlib import Path

from tinamou.facts.net import Link
from tinamou.probe import cache, place
from tinamou.system.namespaces import may_unshare

__all__ = [
    "has_default_route",
    "hears_routers",
    "may_make_user_namespace",
    "ovs_bridges",
    "ovs_has_dpdk",
    "probe_links",
    "resolver",
]


def may_make_user_namespace() -> bool:
    """Whether a child of this process may make a user namespace; tried once for this user, place and boot."""
    try:
        identity, subject = place.identity(), f"namespaces-{os.geteuid()}"
    except OSError:  # without /proc nobody can tell this place from others
        return may_unshare("--user")
    known = cache.load("host", subject, identity, bool)
    if known is None:
        known = may_unshare("--user")
        cache.store("host", subject, identity, known)
    return known


def has_default_route() -> bool:
    """Whether IPv4 or IPv6 packets have a way out of this network namespace (source: proc_net(5), ``/proc/net/route``)."""
    return _default4() or _default6()


def _default4() -> bool:
    rows = [line.split() for line in _text("/proc/net/route").splitlines()[1:]]
    return any(row[1] == "00000000" and int(row[3], 16) & 1 and row[0] != "lo" for row in rows if len(row) > 7)


def _default6() -> bool:
    rows = [line.split() for line in _text("/proc/net/ipv6_route").splitlines()]
    return any(row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo" for row in rows if len(row) > 9)


def hears_routers() -> tuple[str, ...]:
    """Interfaces that would lose what router announcements told the kernel once this host forwards IPv6.

    Source: Documentation/networking/ip-sysctl.rst, ``accept_ra``; include/uapi/linux/ipv6_route.h, ``RTF_ADDRCONF``.
    """
    conf = "/proc/sys/net/ipv6/conf"
    if _text(f"{conf}/all/forwarding").strip() == "1":
        return ()
    rows = [line.split() for line in _text("/proc/net/ipv6_route").splitlines()]
    learned = {row[9] for row in rows if len(row) > 9 and int(row[8], 16) & 0x00040000}
    return tuple(sorted(name for name in learned if _text(f"{conf}/{name}/accept_ra").strip() == "1"))


def resolver() -> str:
    """An IPv4 name server of this host, if it can be one that others reach too; empty when there is none.

    Source: resolv.conf(5); systemd-resolved(8) keeps those it asks itself in a file of its own.
    """
    text = _text("/etc/resolv.conf") + _text("/run/systemd/resolve/resolv.conf")
    rows = [line.split() for line in text.splitlines()]
    found = [row[1] for row in rows if row[:1] == ["nameserver"] and len(row) > 1 and ":" not in row[1]]
    return next((one for one in found if not one.startswith("127.")), next(iter(found), ""))


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def probe_links() -> dict[str, Link]:
    """Every interface of this network namespace but the loopback. Raises CommandError, FileNotFoundError."""
    from tinamou.system import iproute

    found = {}
    for entry in iproute.links():
        info = entry.get("linkinfo", {})
        many = bool(info.get("info_data", {}).get("multi_queue"))
        if entry["ifname"] != "lo":
            name = entry["ifname"]
            found[name] = Link(name, str(info.get("info_kind", "")), int(entry["mtu"]), 256 if many else 1)
    return found


def ovs_bridges() -> tuple[dict[str, str], str]:
    """Open vSwitch bridges with their datapath type, and why they could not be read."""
    from tinamou.system import ovs

    reason = ovs.problem()
    return ({}, reason) if reason else (ovs.bridges(), "")


def ovs_has_dpdk() -> bool:
    """Whether Open vSwitch runs with DPDK. Raises CommandError."""
    from tinamou.system import ovs

    return ovs.has_dpdk()
