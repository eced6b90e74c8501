"""A machine with cards on the host's own wires, in a network namespace that has a bridge, a tap and a cable to offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fields import Group, guest, host
from labs import Lab
from seen import Seen

from tinamou.parts.net.wiring import link_name


def lay(lab: Lab) -> None:
    """What the machine joins: a bridge, a tap with several queues, an interface to sit on."""
    for line in (
        *("link add br0 type bridge", "link set br0 up", "link add under0 type veth peer name under1", "link set under0 up"),
        *("tuntap add tap0 mode tap multi_queue", "link set tap0 up"),
    ):
        lab.ip(line)


def _describe(place: Path) -> dict[str, Any]:
    return {
        "name": "walk",
        "accel": "tcg",
        "cpu": {"count": 2},
        "memory": {"size": "256M"},
        "net": [
            {
                **{"type": "bridge", "network": "doors", "subnet": "10.77.5.0/24", "host": True, "vhost": "off"},
                **{"allow_out": ["tcp:443", "udp:53@10.77.5.1"], "allow_in": ["icmp"]},
                **{"rate_out": "40Mbit", "rate_in": "80Mbit"},
            },
            {"type": "bridge", "network": "alone", "peers": False, "ipv6": False},
            {"type": "bridge", "bridge": "br0", "anti_spoof": False},
            {"type": "tap", "interface": "tap0", "queues": 2, "rss": True, "offload": False, "mac": "52:54:00:d0:0d:03"},
            {"type": "macvtap", "interface": "under0"},
            {"type": "stream", "socket": str(place / "cable.sock"), "listen": True},
        ],
    }


def _link(seen: Seen, number: int) -> str:
    return link_name(str(seen.record.directory), number)


def _rules(seen: Seen, number: int) -> str:
    """The packet filter's chains of one of the machine's interfaces."""
    text, link = seen.run("nft", "list", "table", "netdev", "tinamou"), _link(seen, number)
    chains = text.split("\tchain ")
    return "".join(chain for chain in chains if chain.partition(" {")[0].strip('"') in (f"in-{link}", f"out-{link}"))


def _has(seen: Seen, number: int, *texts: str) -> list[bool]:
    rules = _rules(seen, number)
    return [text in rules for text in texts]


def _master(seen: Seen, number: int) -> str:
    text = seen.run("ip", "-o", "link", "show", _link(seen, number))
    return text.partition(" master ")[2].split(" ")[0]


def _of_bridge(seen: Seen, number: int, *what: str) -> str:
    return seen.run("ip", *what, _master(seen, number))


WIRES = Group(
    _describe,
    {
        "net[].network": host(lambda seen: _master(seen, 0).startswith("tm-br"), True),
        "net[].subnet": host(lambda seen: "inet 10.77.5.1/24" in _of_bridge(seen, 0, "-4", "addr", "show"), True),
        "net[].host": host(lambda seen: "10.77.5.1" in seen.run("nft", "list", "ruleset"), True),
        "net[].vhost": host(lambda seen: "vhost" in seen.netdev("net0"), False),
        "net[].allow_out": host(
            lambda seen: _has(seen, 0, "tcp dport 443", "10.77.5.1 udp dport 53", '"refused"'), [True] * 3
        ),
        "net[].allow_in": host(lambda seen: "icmp" in _rules(seen, 0), True),
        "net[].rate_out": host(lambda seen: _has(seen, 0, "limit rate over 5000000 bytes/second"), [True]),
        "net[].rate_in": host(lambda seen: _has(seen, 0, "limit rate over 10000000 bytes/second"), [True]),
        "net[].peers": host(
            lambda seen: "isolated on" in seen.run("bridge", "-d", "link", "show", "dev", _link(seen, 1)), True
        ),
        "net[].ipv6": host(lambda seen: "inet6 fd" in _of_bridge(seen, 1, "-6", "addr", "show"), False),
        "net[].bridge": host(lambda seen: _master(seen, 2), "br0"),
        "net[].anti_spoof": host(lambda seen: ('"forged"' in _rules(seen, 2), '"forged"' in _rules(seen, 0)), (False, True)),
        "net[].interface": host(
            lambda seen: seen.run("ip", "-o", "link", "show", _link(seen, 4)).split("@")[1].split(":")[0], "under0"
        ),
        "net[].queues": host(lambda seen: len(seen.netdev("net3").get("fds", "").split(":")), 2),
        "net[].rss": host(lambda seen: seen.prop("net3-dev", "rss"), True),
        "net[].offload": guest(
            "for d in /sys/bus/virtio/devices/*; do grep -qs 0d:03 $d/net/*/address && cut -c1-2 $d/features; done", "00"
        ),
        "net[].socket": host(lambda seen: seen.netdev("net5")["addr"]["path"].startswith(str(seen.record.directory)), True),
        "net[].listen": host(lambda seen: (seen.place / "cable.sock").is_socket(), True),
    },
)
