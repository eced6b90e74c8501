"""Backend ``bridge``: a port of a bridge, on a network tinamou makes for its machines or on one the host has."""

from __future__ import annotations

from tinamou.blueprint import JoinBridge, JoinNetwork, MakeTap, Note, SetKernelValue, SetRules, Step, Why
from tinamou.errors import Problem
from tinamou.late import replace
from tinamou.parts.net import firewall, network, tap
from tinamou.parts.net.user import reserved
from tinamou.parts.net.wiring import Nic, Wired

__all__ = ["check", "contribute"]

ETHERNET = 1500
"""Bytes every card assumes for its largest packet when it is told nothing."""


def contribute(nic: Nic) -> Wired:
    """A tap of our own that becomes a port of the bridge."""
    spec = nic.spec
    there = nic.facts.net.links.get(spec.bridge)
    mtu = there.mtu if there else spec.mtu
    on = f"bridge {spec.bridge}" if spec.bridge else f"network {network.name_of(spec)}"
    why = Why("spec net", f"the guest is on {on}")
    steps: list[Step] = [MakeTap(nic.link, nic.queues, why, mtu)]
    if spec.bridge:
        steps.append(_port(nic, spec.bridge, why))
    else:
        steps += _made(nic, why)
    rules = firewall.rules(nic, nic.link, known=not spec.bridge)
    if rules:
        steps.append(SetRules(nic.link, rules, Why("spec net.anti_spoof", "the machine can send as itself only")))
    wired = tap.wire(nic, nic.link, nic.queues, why, steps)
    said = replace(wired.contribution, notes=(*wired.contribution.notes, *_ends(nic)))
    return replace(wired, contribution=said, mtu=mtu if mtu != ETHERNET else 0)


def _onward6(nic: Nic) -> bool:
    """Whether the network's IPv6 leads beyond the host."""
    return nic.spec.ipv6 and not nic.spec.isolated and not nic.facts.net.hears_routers


def _ends(nic: Nic) -> tuple[Note, ...]:
    spec = nic.spec
    if spec.bridge or not spec.ipv6 or spec.isolated or _onward6(nic):
        return ()
    names = nic.facts.net.hears_routers
    why = f"{', '.join(names)} would not hear its router's announcements any more if this host forwarded IPv6"
    fix = " ".join(f"net.ipv6.conf.{name}.accept_ra=2" for name in names)
    return (
        Note("info", f"IPv6 of network {network.name_of(spec)} ends at this host: {why}; sysctl {fix}", Why("host", why)),
    )


def _port(nic: Nic, bridge: str, why: Why) -> JoinBridge:
    return JoinBridge(nic.link, bridge, nic.mac, why, alone=not nic.spec.peers, quiet=nic.spec.anti_spoof)


def _made(nic: Nic, why: Why) -> list[Step]:
    spec, place = nic.spec, nic.facts.place
    name, bridge = network.name_of(spec), network.bridge_of(nic)
    join = JoinNetwork(
        network=name,
        bridge=bridge,
        subnet=network.subnet_of(nic),
        prefix6=network.prefix6(name) if spec.ipv6 else "",
        isolated=spec.isolated,
        host=spec.host,
        member=f"{place.name}.{nic.number}",
        machine=place.name,
        mac=nic.mac,
        address=network.address_of(nic),
        address6=network.address6(name, nic.mac) if spec.ipv6 else "",
        why=Why("spec net.network", f"bridge, addresses, DHCP and names of {name} come with its first machine"),
        forwards=nic.forwards,
        mtu=spec.mtu,
        onward6=_onward6(nic),
    )
    routed = Why("spec net.network", "packets of the network find their way beyond the host")
    forwarding = [] if spec.isolated else [SetKernelValue("/proc/sys/net/ipv4/ip_forward", "1", routed)]
    forwarding += [SetKernelValue("/proc/sys/net/ipv6/conf/all/forwarding", "1", routed)] if _onward6(nic) else []
    return [*reserved(nic), *forwarding, join, _port(nic, bridge, why)]


def check(nic: Nic) -> list[Problem]:
    """A bridge that is not there, or is none; a host without the tools for a network of our own."""
    path, spec, net = f"net[{nic.number}]", nic.spec, nic.facts.net
    if not spec.bridge:
        tools = [tool for tool in ("dnsmasq", "nft") if not nic.facts.host.has_tool(tool)]
        why = "it runs the DHCP and names" if tools == ["dnsmasq"] else "it keeps the network apart from others"
        return [Problem(f"{path}.network", tool, f"{tool} is not installed; {why}", f"install {tool}") for tool in tools]
    link = net.links.get(spec.bridge)
    if link is None:
        others = ", ".join(sorted(one.name for one in net.links.values() if one.kind == "bridge")) or "none"
        fix = f"ip link add {spec.bridge} type bridge, or use network = …; bridges here: {others}"
        return [Problem(f"{path}.bridge", spec.bridge, "there is no such interface on this host", fix)]
    if link.kind != "bridge":
        fix = "use type ovs" if spec.bridge in net.ovs else "use type macvtap to share an interface with the host"
        return [Problem(f"{path}.bridge", spec.bridge, f"it is no bridge but {link.kind or 'hardware'}", fix)]
    if spec.mtu > link.mtu:
        fix = f"set net.mtu to {link.mtu} or less, or give {spec.bridge} a larger one"
        return [Problem(f"{path}.mtu", spec.mtu, f"{spec.bridge} passes packets of at most {link.mtu} bytes", fix)]
    return []
