"""The rules of one interface as nft(8) statements: who it may be, whom it may reach and be reached by, how fast.

They stand in chains of the device's own (family ``netdev``, hooks ingress and egress): every packet the guest sends or gets
passes them, whatever the interface is joined to. Connections the guest opened are remembered in the set ``flows``, since
connection tracking does not exist there.
"""

from __future__ import annotations

import ipaddress

from tinamou.parts.net import network
from tinamou.parts.net.spec import NetSpec, parse_filter, parse_rate
from tinamou.parts.net.wiring import Nic

__all__ = ["rules", "script"]

ADVERTISED = "@th,64,128"
"""The target address of a neighbour advertisement (source: RFC 4861, section 4.4); nft 1.0.6 has no name for it."""

BURST = 262144
"""Bytes that may pass at once under a rate: four packets of the largest size offloads make."""


def rules(nic: Nic, link: str, *, known: bool) -> str:
    """The rules of one interface, empty when it needs none; ``known``: tinamou gave the guest its addresses."""
    spec = nic.spec
    sent, got = [], []
    if spec.anti_spoof and (known or spec.bridge):
        sent += [_counted(rule, "forged") for rule in _itself(nic, known=known)]
    sent += _rate(spec.rate_out)
    got += _rate(spec.rate_in)
    flows = f"flows-{link}"
    if spec.allow_out is not None or spec.allow_in is not None:
        sent += _out(spec, flows)
        got += _in(spec, flows)
    return script(link, sent, got) if sent or got else ""


def script(link: str, sent: list[str], got: list[str]) -> str:
    """The statements that fill the chains and sets of ``link``, for table ``netdev tinamou``."""
    lines = []
    for name, size in ((f"flows-{link}", "ipv4_addr"), (f"flows6-{link}", "ipv6_addr")):
        if any(name in rule for rule in (*sent, *got)):
            kind = f"{size} . inet_proto . inet_service . inet_service"
            lines.append(
                f"add set netdev tinamou {name} {{ type {kind}; flags dynamic,timeout; timeout 120s; size 65536; }}"
            )
    for chain, hook, body in ((f"in-{link}", "ingress", sent), (f"out-{link}", "egress", got)):
        if body:
            head = f"type filter hook {hook} device {link} priority 0; policy accept;"
            lines.append(f"add chain netdev tinamou {chain} {{ {head} }}")
            lines += [f"add rule netdev tinamou {chain} {rule}" for rule in body]
    return "\n".join(lines) + "\n"


def _counted(rule: str, reason: str) -> str:
    """A rule that drops, with a count of what it dropped under a word for the reason."""
    return f'{rule.removesuffix("drop")}counter drop comment "{reason}"'


def _itself(nic: Nic, *, known: bool) -> list[str]:
    """Frames, ARP, IP and IPv6 only from the machine's own addresses; no answers of a DHCP server or router."""
    lines = [f"ether saddr != {nic.mac} drop", f"arp saddr ether != {nic.mac} drop"]
    lines += ["ip protocol udp udp sport 67 drop", "icmpv6 type nd-router-advert drop", "ether type vlan drop"]
    if not known:
        return lines
    own = network.address_of(nic)
    lines += [f"arp saddr ip != {{ {own}, 0.0.0.0 }} drop", f"ip saddr != {{ {own}, 0.0.0.0 }} drop"]
    lines += ["ip saddr 0.0.0.0 udp dport != 67 drop", "ip saddr 0.0.0.0 ip protocol != udp drop"]
    own6 = ipaddress.IPv6Address(network.address6(network.name_of(nic.spec), nic.mac))
    local = ipaddress.IPv6Address(0xFE80 << 112 | int(own6) & (1 << 64) - 1)
    allowed = [own6, local] if nic.spec.ipv6 else []
    lines.append(f"ip6 saddr != {{ {', '.join(str(one) for one in (*allowed, '::'))} }} drop")
    targets = ", ".join(f"{int(one):#034x}" for one in (*allowed, ipaddress.IPv6Address("::")))
    lines.append(f"icmpv6 type nd-neighbor-advert {ADVERTISED} != {{ {targets} }} drop")
    return lines


def _rate(text: str) -> list[str]:
    return [_counted(f"limit rate over {parse_rate(text)} bytes/second burst {BURST} bytes drop", "rate")] if text else []


_PLUMBING = [
    "ether type arp accept",
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept",
]


def _out(spec: NetSpec, flows: str) -> list[str]:
    flows6 = flows.replace("flows-", "flows6-", 1)
    lines = [*_PLUMBING, "udp sport 68 udp dport 67 accept", "udp sport 546 udp dport 547 accept"]
    if spec.allow_in is not None:
        keep = "ip daddr . ip protocol . th dport . th sport"
        lines.append(f"ip protocol {{ tcp, udp }} update @{flows} {{ {keep} }}")
        keep = "ip6 daddr . ip6 nexthdr . th dport . th sport"
        lines.append(f"ip6 nexthdr {{ tcp, udp }} update @{flows6} {{ {keep} }}")
    if spec.allow_out is not None:
        if spec.allow_in is None or spec.allow_in:
            lines.append("tcp flags & (syn | ack) != syn accept")
            lines += _answers(spec)
        lines += [line for rule in spec.allow_out for line in _rule(rule, "daddr")]
        lines.append(_counted("drop", "refused"))
    return lines


def _answers(spec: NetSpec) -> list[str]:
    """A UDP service that may be asked may answer."""
    ports = [ports for protocol, ports, _ in map(parse_filter, spec.allow_in or ()) if protocol == "udp" and ports]
    return [f"udp sport {port} accept" for port in ports] + ["icmp type echo-reply accept", "icmpv6 type echo-reply accept"]


def _in(spec: NetSpec, flows: str) -> list[str]:
    if spec.allow_in is None:
        return []
    flows6 = flows.replace("flows-", "flows6-", 1)
    lines = [*_PLUMBING, "udp sport 67 udp dport 68 accept", "udp sport 547 udp dport 546 accept"]
    lines += [f"ip saddr . ip protocol . th sport . th dport @{flows} accept"]
    lines += [f"ip6 saddr . ip6 nexthdr . th sport . th dport @{flows6} accept"]
    lines += ["icmp type { echo-reply, destination-unreachable, time-exceeded } accept"]
    lines += ["icmpv6 type { echo-reply, destination-unreachable, time-exceeded, packet-too-big } accept"]
    lines += [line for rule in spec.allow_in for line in _rule(rule, "saddr")]
    return [*lines, _counted("drop", "refused")]


def _rule(text: str, side: str) -> list[str]:
    """One entry of an allow list; both families where it names no network."""
    protocol, ports, peer = parse_filter(text)
    what = {"icmp": "meta l4proto {{ icmp, ipv6-icmp }}", "any": ""}.get(protocol, f"meta l4proto {protocol}")
    what = what.replace("{{", "{").replace("}}", "}")
    if ports:
        what = f"{protocol} dport {ports}"
    whom = f"ip{'6' if ':' in peer else ''} {side} {peer}" if peer else ""
    return [" ".join(filter(None, [whom, what, "accept"]))]
