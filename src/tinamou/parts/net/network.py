"""Names and numbers of networks tinamou makes: all derived from the network's name, so that every machine finds the same."""

from __future__ import annotations

import ipaddress

from tinamou.digest import sha256
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.net.wiring import Nic

__all__ = ["address6", "address_of", "bridge_of", "name_of", "prefix6", "subnet_for", "subnet_of"]


def name_of(spec: NetSpec) -> str:
    """The network an interface is on."""
    return spec.network or "default"


def bridge_of(nic: Nic) -> str:
    """The name of the network's bridge; another state directory's network of that name is another one."""
    home = nic.facts.place.directory.rpartition("/")[0]
    return "tm-br" + sha256(f"{home}/{name_of(nic.spec)}".encode()).hexdigest()[:8]


def subnet_for(spec: NetSpec) -> str:
    """The addresses as requested, or a /24 of 10.64.0.0/10 by the network's name."""
    if spec.subnet:
        return spec.subnet
    number = int.from_bytes(sha256(name_of(spec).encode()).digest()[:2], "big") & 0x3FFF
    return f"10.{64 + (number >> 8)}.{number & 255}.0/24"


def subnet_of(nic: Nic) -> str:
    """The addresses the network has, or will have when this machine makes it."""
    return nic.facts.net.subnets.get(name_of(nic.spec)) or subnet_for(nic.spec)


def address_of(nic: Nic) -> str:
    """The guest's address: as requested, as leased, or (in a plan that starts nothing) the second of the network."""
    if nic.spec.address:
        return nic.spec.address.partition("/")[0]
    return nic.facts.net.leased.get(nic.number) or str(ipaddress.IPv4Network(subnet_of(nic))[2])


def prefix6(name: str) -> str:
    """The network's own IPv6 addresses, a /64 of fd00::/8 (source: RFC 4193)."""
    digest = sha256(f"tinamou network {name}".encode()).hexdigest()
    return f"fd{digest[:2]}:{digest[2:6]}:{digest[6:10]}:1::/64"


def address6(name: str, mac: str) -> str:
    """The address a guest gives itself there from its MAC address (source: RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    identifier = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return str(ipaddress.IPv6Network(prefix6(name))[int.from_bytes(identifier, "big")])
